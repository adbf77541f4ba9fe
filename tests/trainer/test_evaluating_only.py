"""Without a training dataset nothing about training is refused; with nothing to hide, a trainer is Trainer's own."""

import signal

import pytest
from torch.utils.data import IterableDataset
from transformers import EarlyStoppingCallback, Trainer

from hf_kakurenbo import KakurenboTrainer
from hf_kakurenbo.trainer.epochs import HidingCallback
from toy import Classifier, arguments, make_trainer, samples, trained, without_timings

REFUSED_TO_TRAIN = [
    {"accelerator_config": {"use_seedable_sampler": False}},
    {"train_sampling_strategy": "batch_rebalance"},
    {"ignore_data_skip": True},
    {"n_gpu": 2},
]


def evaluating(tmp_path, trainer, options, **given):
    options = dict(options)
    gpus = options.pop("n_gpu", None)
    args = arguments(tmp_path, **options)
    if gpus is not None:
        args._n_gpu = gpus
    return trainer(Classifier(), args, eval_dataset=samples(64), **given)


@pytest.mark.parametrize("options", [{}, {"num_train_epochs": 1}, *REFUSED_TO_TRAIN], ids=str)
def test_a_trainer_that_only_evaluates_is_made(tmp_path, monkeypatch, options):
    try:
        made = evaluating(tmp_path, KakurenboTrainer, options)
    except ValueError as error:
        if "is not a valid" not in str(error):
            raise
        pytest.skip(f"this release of transformers does not know the option: {error}")
    made.args._n_gpu = 0  # of a machine without GPUs, on which this is evaluated
    state = made.model.state_dict()
    plain = Trainer(Classifier(), arguments(tmp_path), eval_dataset=samples(64))
    plain.model.load_state_dict(state)
    found, expected = ({**each.evaluate(), "eval_model_preparation_time": 0} for each in (made, plain))
    assert without_timings([found]) == without_timings([expected])
    predicted = made.predict(samples(10)).predictions
    assert predicted.tolist() == plain.predict(samples(10)).predictions.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    list(
        zip(
            REFUSED_TO_TRAIN,
            ["use_seedable_sampler=False", "batch_rebalance", "ignore_data_skip=True", "2 GPUs"],
            strict=True,
        )
    ),
    ids=str,
)
@pytest.mark.parametrize("late", [True, False], ids=["set later", "of its own loader"])
def test_the_refusal_comes_when_training_begins(tmp_path, options, message, late):
    class OwnLoader(KakurenboTrainer):
        def get_train_dataloader(self):
            return self._get_dataloader(samples(), "Training", 16, lambda data: None, is_training=True)

    try:
        trainer = evaluating(tmp_path, KakurenboTrainer if late else OwnLoader, options)
    except ValueError as error:
        if "is not a valid" not in str(error):
            raise
        pytest.skip(f"this release of transformers does not know the option: {error}")
    if late:
        trainer.train_dataset = samples()
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_training_dataset_set_later_is_hidden(tmp_path):
    trainer = evaluating(tmp_path, KakurenboTrainer, {"num_train_epochs": 3, "move_back": False})
    trainer.train_dataset = samples()
    trainer.train()
    assert trainer.ledger.times_hidden.sum() == int(0.3 * 203 * 0.8) + int(0.3 * 203 * 0.6)


def test_training_without_a_dataset_is_trainers_message(tmp_path):
    with pytest.raises(ValueError, match="training requires a train_dataset"):
        evaluating(tmp_path, KakurenboTrainer, {}).train()


# ---- Nothing to hide ----


def kinds(trainer):
    return [type(callback) for callback in trainer.callback_handler.callbacks]


@pytest.mark.parametrize("options", [{}, {"enable_jit_checkpoint": True}, {"disable_tqdm": False}], ids=str)
def test_with_nothing_to_hide_the_callbacks_are_trainers(tmp_path, options):
    before = signal.getsignal(signal.SIGTERM)
    given = {"callbacks": [EarlyStoppingCallback(), *([] if options else [HidesNothing])]}
    try:
        plain = make_trainer(tmp_path, Trainer, trainer_options=given, **options)
        none = make_trainer(tmp_path, trainer_options=given, hiding_policy="none", **options)
        hiding = make_trainer(tmp_path, trainer_options=given, **options)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert kinds(none) == kinds(plain)
    assert kinds(hiding)[0] is HidingCallback
    assert kinds(hiding).count(HidingCallback) == 1
    assert len(kinds(hiding)) == len(kinds(plain)) + 1


class HidesNothing(EarlyStoppingCallback):
    pass


def test_the_policy_may_be_set_between_trainings(tmp_path):
    """As loops over policies do that make one trainer."""
    plain = make_trainer(tmp_path, Trainer)
    trainer = make_trainer(tmp_path, hiding_policy="none", num_train_epochs=3, learning_rate=0.05)
    for policy in ("none", "kakurenbo", "random", "none"):
        trainer.args.hiding_policy = policy
        trainer.train()
        assert (trainer.ledger is None) == (policy == "none")
        assert trainer.ledger is None or trainer.ledger.times_hidden.any()
        expected = [] if policy == "none" else [HidingCallback]
        assert kinds(trainer) == [*expected, *kinds(plain)]


def test_a_search_cannot_switch_hiding_on_or_off(tmp_path):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for made, found in (("none", "kakurenbo"), ("kakurenbo", "none")):
        trainer = KakurenboTrainer(
            args=arguments(tmp_path, hiding_policy=made, num_train_epochs=2),
            train_dataset=samples(),
            eval_dataset=samples(40),
            model_init=Classifier,
        )
        with pytest.raises(ValueError, match=f"hiding_policy='{found}': a search may choose among policies, and not"):
            trainer.hyperparameter_search(
                hp_space=lambda trial, found=found: {"hiding_policy": found}, n_trials=1, backend="optuna"
            )
        assert trainer.state.global_step == 0


# ---- Nothing to train on ----


class NoSamples(IterableDataset):
    def __iter__(self):
        yield from ()

    def __len__(self):
        return 0


@pytest.mark.parametrize("dataset", [[], NoSamples()], ids=["map-style", "stream"])
def test_an_empty_dataset_is_refused(tmp_path, dataset):
    with pytest.raises(
        ValueError, match=r"training dataset is empty: it has 0 samples\. Check the split.*train_dataset out"
    ):
        make_trainer(tmp_path, dataset=dataset)


@pytest.mark.parametrize("options", [{}, {"max_steps": 3}], ids=str)
def test_a_dataset_that_fills_no_batch_is_refused(tmp_path, options):
    trainer = make_trainer(tmp_path, dataset=samples(15), dataloader_drop_last=True, **options)
    with pytest.raises(
        ValueError, match="no batch: dataloader_drop_last=True and per_device_train_batch_size=16 leave"
    ):
        trainer.train()
    assert trainer.state.global_step == 0
    assert trained(tmp_path, dataset=samples(16), dataloader_drop_last=True, **options).state.global_step > 0
