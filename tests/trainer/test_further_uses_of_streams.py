"""What users do around a training on a stream: each visible sample is trained on once, each hidden one never."""

from itertools import chain

import pytest
import torch
from transformers import TrainerCallback

from stream_toy import NotingTrainer, streamed
from toy import NUM_SAMPLES, LinearClassifier, make_trainer


class Callback(TrainerCallback):
    trainer = None


class EvaluatesTheTrainingData(Callback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % 9 == 0:
            assert len(self.trainer.predict(self.trainer.train_dataset).label_ids) == NUM_SAMPLES


class MakesALoader(Callback):
    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % 9 == 0:
            found = [len(batch["labels"]) for batch in self.trainer.get_train_dataloader()]
            assert sum(found) == NUM_SAMPLES


class TrainsAnother(Callback):
    """On the same stream object, with hiding too, in the middle of an epoch."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 20:
            self.other = make(args.output_dir, self.trainer.stream)
            self.other.train()
            require_right(self.other)


def make(tmp_path, stream, callbacks=(), **options):
    options = {"move_back": False, "num_train_epochs": 3, "num_samples": NUM_SAMPLES, **options}
    given = {"callbacks": list(callbacks)}
    trainer = make_trainer(
        tmp_path, NotingTrainer, model=LinearClassifier, dataset=stream, trainer_options=given, **options
    )
    trainer.stream = stream
    for callback in callbacks:
        callback.trainer = trainer
    return trainer


def require_right(trainer):
    assert len(trainer.batches) == len(trainer.watch.hidden) == 3
    for epoch, hidden in enumerate(trainer.watch.hidden):
        trained = sorted(chain(*trainer.batches[epoch]))
        assert trained == (~hidden).nonzero().flatten().tolist()
    assert [bool(hidden.any()) for hidden in trainer.watch.hidden] == [False, True, True]


@pytest.mark.parametrize(
    "callback",
    [EvaluatesTheTrainingData, MakesALoader, TrainsAnother],
    ids=lambda callback: callback.__name__,
)
def test_what_a_callback_does_beside_a_training(tmp_path, callback):
    trainer = make(tmp_path, streamed(), [callback()])
    trainer.train()
    require_right(trainer)


@pytest.mark.parametrize("given", ["the stream", "what the first made of it"])
def test_two_trainers_take_turns_on_one_stream(tmp_path, given):
    stream = streamed()
    first = make(tmp_path / "a", stream)
    second = make(tmp_path / "b", stream if given == "the stream" else first.train_dataset, seed=2)
    for trainer in (first, second, first):
        trainer.batches = {}
        trainer.watch.hidden.clear()
        trainer.train()
        require_right(trainer)


class GoesThroughTheLoader(Callback):
    def on_step_end(self, args, state, control, train_dataloader=None, model=None, **kwargs):
        if state.global_step % 9 == 0:
            for batch in train_dataloader:
                with torch.no_grad():
                    model(batch["x"], batch["labels"])


def test_a_stream_that_is_gone_through_twice_at_the_same_time_is_refused(tmp_path):
    """Accelerate's loader of a stream then ends early, the one that is trained on too."""
    trainer = make(tmp_path, streamed(), [GoesThroughTheLoader()])
    with pytest.raises(RuntimeError, match=r"Epoch 0 ended after 10 of its 13 batches.*hiding_policy=\"none\""):
        trainer.train()
