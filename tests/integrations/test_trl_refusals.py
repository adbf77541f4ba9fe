"""TRL's trainers whose samples have no loss that could be ranked: refused at construction, by kind, with the reason."""

import importlib
import pkgutil
import re
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import transformers

from hf_kakurenbo import SampleStatistics
from hf_kakurenbo.hiding import token_statistics
from hf_kakurenbo.integrations.registry import require_supported
from hf_kakurenbo.integrations.sentence_transformers import _CRITERIA, _OF_EMBEDDINGS
from hf_kakurenbo.integrations.trl import _OBSERVERS
from preference_toy import policy, trl
from trl_toy import QUIET, text, tokenizer, with_hiding

KNOWN = {"SFTTrainer", "DPOTrainer", "KTOTrainer", "RewardTrainer", "CPOTrainer", "ORPOTrainer"}
GENERATION = r"completions that it generates, or regroups, itself"
DISTILLATION = r"how far two models are apart"
UNKNOWN = r"How TRL's \w+ computes the loss of a sample is not known here; known are SFTTrainer, "


def statistics_of_students(outputs, inputs):
    """The student's loss on the answers, as an example of a function of the user's own."""
    return SampleStatistics(*token_statistics(outputs.logits, inputs["labels"], shift=True))


def prompts(count=12):
    return datasets.Dataset.from_dict({"prompt": [text(place, 3) for place in range(count)]})


def dialogues(count=12):
    said = [(text(place, 3), text(50 + place, 4)) for place in range(count)]
    return datasets.Dataset.from_dict(
        {"messages": [[{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b in said]}
    )


def reward(completions, **columns):
    return [float(len(completion)) for completion in completions]


def talking_tokenizer():
    made = tokenizer()
    made.chat_template = (
        "{% for message in messages %}{{ message['content'] }} {% endfor %}{% if add_generation_prompt %} {% endif %}"
    )
    made.padding_side = "left"
    return made


def generating(name, home="trl", **options):
    """A trainer's name, its module, dataset, arguments and options."""
    return name, home, prompts, {"reward_funcs": reward}, options


GENERATING = [
    generating("GRPO", num_generations=2, max_completion_length=4),
    generating("RLOO", num_generations=2, max_completion_length=4),
    generating("OnlineDPO", "trl.experimental.online_dpo", max_new_tokens=4),
    ("Distillation", "trl", prompts, {"teacher_model": 1}, {"max_completion_length": 4}),
]
DISTILLING = ("GKD", "trl.experimental.gkd", dialogues, {"teacher_model": 1}, {"max_new_tokens": 4})


def construct(given, output_dir, **options):
    name, home, dataset, trainer_options, own = given
    module = importlib.import_module(home)
    trainer, config = with_hiding(getattr(module, f"{name}Trainer"), getattr(module, f"{name}Config"))
    if "teacher_model" in trainer_options:
        trainer_options = {"teacher_model": policy(seed=1)}
    # Some load their reference from where the policy was loaded.
    policy().save_pretrained(output_dir / "model")
    talking_tokenizer().save_pretrained(output_dir / "model")
    transformers.set_seed(3)
    made = trainer(
        model=str(output_dir / "model"),
        args=config(output_dir=str(output_dir), **{**QUIET, "per_device_train_batch_size": 4, **own, **options}),
        train_dataset=dataset(),
        processing_class=talking_tokenizer(),
        **trainer_options,
    )
    made.remove_callback(transformers.PrinterCallback)
    return made


@pytest.mark.parametrize("given", [pytest.param(each, id=each[0], marks=pytest.mark.wide) for each in GENERATING])
def test_generation_is_refused_even_with_a_function(given, tmp_path):
    name = f"Kakurenbo{given[0]}Trainer"
    for options in ({}, {"statistics_fn": statistics_of_students}):
        with pytest.raises(ValueError, match=rf"{name} cannot hide.*{GENERATION}.*hiding_policy=.none"):
            construct(given, tmp_path, **options)
    trainer = construct(given, tmp_path, hiding_policy="none", max_steps=1)
    trainer.train()
    assert trainer.ledger is None
    assert trainer.state.global_step == 1


def test_distillation_is_refused_without_a_function(tmp_path):
    with pytest.raises(ValueError, match=rf"KakurenboGKDTrainer cannot hide.*{DISTILLATION}.*statistics_fn.*none"):
        construct(DISTILLING, tmp_path)


@pytest.mark.wide
def test_distillation_goes_by_a_function_or_without_hiding(tmp_path):
    hiding = construct(DISTILLING, tmp_path, statistics_fn=statistics_of_students, move_back=False, lmbda=0.0)
    hiding.train()
    assert int(hiding.ledger.times_hidden.sum()) > 0
    assert bool(hiding.ledger.loss.isfinite().all())
    plain = construct(DISTILLING, tmp_path, hiding_policy="none", max_steps=2, lmbda=1.0)
    plain.train()
    assert plain.ledger is None


def every_trainer():
    """The classes of TRL that are trainers, by module; modules that cannot be imported here are left out."""
    import trl.experimental

    homes = ["trl", *(f"trl.experimental.{found.name}" for found in pkgutil.iter_modules(trl.experimental.__path__))]
    for home in homes:
        try:
            module = importlib.import_module(home)
        except Exception:
            continue
        for name in dir(module):
            if name.endswith("Trainer") and not name.startswith("_"):
                yield getattr(module, name)


def of_trl(name, **members):
    """A trainer of a release of TRL to come."""
    return with_hiding(
        type(name, (transformers.Trainer,), {"__module__": "trl.trainer.new", **members}), trl.SFTConfig
    )[0]


def of_a_student(self, teacher_model=None):
    pass


@pytest.mark.parametrize(
    ("members", "reason", "function_helps"),
    [
        ({}, UNKNOWN, True),
        ({"__init__": of_a_student}, DISTILLATION, True),
        ({"_prepare_inputs": None}, GENERATION, False),
        ({"get_train_dataloader": None}, GENERATION, False),
        ({"_generate_and_score": None}, GENERATION, False),
    ],
    ids=["unknown", "two models", "inputs", "loader", "generates"],
)
def test_a_trainer_to_come_is_refused_by_its_kind(members, reason, function_helps):
    for trainer in (of_trl("NewTrainer", **members), type("OfAUser", (of_trl("NewTrainer", **members),), {})):
        made = object.__new__(trainer)
        with pytest.raises(ValueError, match=rf"{trainer.__name__} cannot hide samples\. .*{reason}.*policy=.none"):
            require_supported(made, False)
        if function_helps:
            require_supported(made, True)
            continue
        with pytest.raises(ValueError, match=reason):
            require_supported(made, True)


@pytest.mark.wide
def test_every_trainer_of_trl_is_known_or_refused(tmp_path):
    met = set()
    for trainer in every_trainer():
        made = object.__new__(with_hiding(trainer, trl.SFTConfig)[0])
        made.args = SimpleNamespace(loss_type=None)
        met.add(trainer.__name__)
        if trainer.__name__ in KNOWN:
            require_supported(made, False)
            continue
        with pytest.raises(ValueError, match=rf"cannot hide samples\. .*({GENERATION}|{DISTILLATION}|{UNKNOWN})"):
            require_supported(made, False)
    assert met >= KNOWN | {"GRPOTrainer", "RLOOTrainer", "GKDTrainer", "DistillationTrainer", "OnlineDPOTrainer"}


@pytest.mark.parametrize("name", ["DPOTrainer", "KTOTrainer", "RewardTrainer"])
def test_preferences_of_earlier_releases_are_refused(name, monkeypatch):
    made = object.__new__(with_hiding(getattr(trl, name), trl.SFTConfig)[0])
    made.args = SimpleNamespace(loss_type=None)
    require_supported(made, False)
    monkeypatch.setattr("hf_kakurenbo.integrations.trl.version", lambda library: "1.15.2")
    with pytest.raises(ValueError, match=rf"How TRL 1.15.2 computes the losses of {name} is not known.*Update TRL"):
        require_supported(made, False)
    require_supported(made, True)


@pytest.mark.parametrize(
    ("page", "known"),
    [("trl.md", {*_OBSERVERS}), ("sentence_transformers.md", {*_CRITERIA, *_OF_EMBEDDINGS})],
    ids=["TRL", "Sentence Transformers"],
)
def test_the_page_names_every_trainer_that_is_known(page, known):
    text = (Path(__file__).parents[2] / "docs" / "howto" / page).read_text(encoding="utf-8")
    ranked, _, _ = text[text.index("ranked by |") :].partition("| refused")
    assert set(re.findall(r"`(\w+(?:Trainer|Loss))`", ranked)) == known
