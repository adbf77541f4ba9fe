"""What has no effect is said once, when the trainer is made: options, a length, a training that ends too early."""

import re

import pytest

from hf_kakurenbo import KakurenboTrainer
from hf_kakurenbo.trainer import advice
from known_policies import rows
from stream_toy import streamed
from toy import Classifier, LinearClassifier, arguments, make_trainer, samples, trained

SAMPLES, BATCH = 70, 16  # 5 updates an epoch


def reported(caplog):
    return [record.getMessage() for record in caplog.records if record.name == advice.__name__]


# ---- A training that ends before anything could be hidden ----

# Whatever may be hidden is hidden then, of each policy.
EAGER = {
    "kakurenbo": {"move_back": False},
    "spaced_repetition": {"confidence_threshold": 0.0, "policy_options": {"random_pause": False, "growing": False}},
    "coin": {"confidence_threshold": 0.0},
    "infobatch": {},
    "selective_backprop": {},
    "forgetting": {},
    "importance": {},
    "random": {},
    "order_dp": {},
    "seta": {},
}
LENGTHS = [
    {"num_train_epochs": 1},
    {"num_train_epochs": 1.4},
    {"num_train_epochs": 2},
    {"num_train_epochs": 2, "hiding_warmup_epochs": 2},
    {"num_train_epochs": 3, "hiding_warmup_epochs": 2},
    {"num_train_epochs": 1, "hiding_warmup_epochs": 0},
    {"num_train_epochs": 1, "hiding_warmup_epochs": 0, "initial_pass": True},
    {"max_steps": 5},
    {"max_steps": 6},
    {"max_steps": 4, "dataloader_drop_last": True},
    {"max_steps": 5, "dataloader_drop_last": True},
    {"max_steps": 3, "gradient_accumulation_steps": 2},
    {"max_steps": 4, "gradient_accumulation_steps": 2},
    {"max_steps": 10, "hiding_warmup_epochs": 2},
]
CASES = [
    *(("kakurenbo", length) for length in LENGTHS),
    *(
        pytest.param(policy, LENGTHS[index], marks=pytest.mark.wide)
        for policy in EAGER
        for index in (0, 2)
        if policy != "kakurenbo"
    ),
    *((policy, LENGTHS[5]) for policy in ("coin", "random")),
    ("kakurenbo", {"num_train_epochs": 2, "fraction_milestones": [0, 0.9], "fraction_factors": [0, 1]}),
    ("kakurenbo", {"num_train_epochs": 2, "policy_options": {"hiding_warmup_epochs": 2}}),
    ("forgetting", {"num_train_epochs": 3, "policy_options": {"prune_at": 0.7}}),
    ("forgetting", {"num_train_epochs": 3, "policy_options": {"prune_at": 0.6}}),
    ("infobatch", {"num_train_epochs": 3, "policy_options": {"full_from": 0.3}}),
    ("infobatch", {"num_train_epochs": 3, "policy_options": {"full_from": 0.4}}),
    ("seta", {"num_train_epochs": 2, "policy_options": {"random_from": 0.5, "dropped_fraction": 0.0}}),
    ("seta", {"num_train_epochs": 2, "policy_options": {"random_from": 0.5}}),
    *(
        ("ies", {**length, "policy_options": {"max_second_difference": 0.1}})
        for length in (
            {"num_train_epochs": 4},
            {"num_train_epochs": 6},
            {"num_train_epochs": 5, "hiding_warmup_epochs": 0, "initial_pass": True},
        )
    ),
    *(
        (
            "spaced_repetition",
            {
                "num_train_epochs": 2,
                "policy_options": {
                    "random_pause": False,
                    "growing": False,
                    "resting_milestones": [0, 0.5],
                    "resting_factors": factors,
                },
            },
        )
        for factors in ([1, 0], [0, 1])
    ),
]


@pytest.mark.parametrize("policy", ["none", *EAGER])
def test_of_the_defaults_nothing_is_said(tmp_path, caplog, policy):
    make_trainer(tmp_path, hiding_policy=policy)
    assert reported(caplog) == []


@pytest.mark.parametrize(("policy", "options"), CASES, ids=str)
def test_it_is_said_where_nothing_is_hidden_and_nowhere_else(tmp_path, caplog, policy, options):
    options = {
        "hiding_policy": policy,
        "learning_rate": 0.05,
        "max_hidden_fraction": 0.5,
        **EAGER.get(policy, {}),
        **options,
    }
    if policy not in ("kakurenbo", "random", "forgetting"):
        del options["max_hidden_fraction"]
    trainer = make_trainer(tmp_path, model=LinearClassifier, dataset=samples(SAMPLES), **options)
    warnings = [
        warning for warning in reported(caplog) if warning.startswith("Nothing will be hidden in this training (")
    ]
    trainer.train()
    assert bool(warnings) == (not trainer.ledger.times_hidden.any())
    assert len(warnings) <= 1
    assert len([warning for warning in reported(caplog) if warning.startswith("Nothing")]) == len(warnings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"num_train_epochs": 1},
            r"\(num_train_epochs=1\): hiding_policy='kakurenbo' with hiding_warmup_epochs=1 needs more epochs.*set "
            "hiding_warmup_epochs=0 and initial_pass=True",
        ),
        (
            {"max_steps": 5},
            r"\(max_steps=5, 5 in an epoch\): hiding_policy='kakurenbo' with hiding_warmup_epochs=1 needs",
        ),
        ({"num_train_epochs": 1, "hiding_policy": "forgetting"}, "hiding_policy='forgetting' needs more epochs.$"),
    ],
    ids=str,
)
def test_it_says_why_and_what_to_set(tmp_path, caplog, options, message):
    make_trainer(tmp_path, dataset=samples(SAMPLES), **options)
    [warning] = reported(caplog)
    assert re.search(message, warning)


def test_plain_arguments_of_one_epoch_train_as_they_did(tmp_path, caplog):
    trainer = trained(tmp_path, num_train_epochs=1)
    assert len(reported(caplog)) == 1
    assert trainer.state.epoch == 1
    assert not trainer.ledger.times_hidden.any()


def test_a_stream_is_as_long_as_it_says(tmp_path, caplog):
    make_trainer(tmp_path, dataset=streamed(), num_samples=203, max_steps=14)
    assert reported(caplog) == []
    make_trainer(tmp_path, dataset=streamed(), num_samples=203, max_steps=13)
    assert ["max_steps=13, 13 in an epoch" in warning for warning in reported(caplog)] == [True]


def test_one_rank_says_it(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(advice, "rank", lambda: 1)
    make_trainer(tmp_path, num_train_epochs=1)
    assert reported(caplog) == []


def test_of_a_policy_of_the_users_only_what_it_says_of_itself(tmp_path, caplog):
    make_trainer(tmp_path, num_train_epochs=1, hiding_policy="first_ids")  # it may hide in the first epoch
    assert reported(caplog) == []


# ---- Options of another policy ----

OTHER_VALUES = {
    "max_hidden_fraction": 0.5,
    "fraction_milestones": [0.0, 0.1, 0.2, 0.3],
    "fraction_factors": [1.0, 0.5, 0.4, 0.3],
    "hiding_warmup_epochs": 2,
    "confidence_threshold": 0.5,
    "move_back": False,
    "refresh_interval": 2,
}


@pytest.mark.parametrize("policy", EAGER)
def test_an_option_that_the_policy_does_not_take_is_named(tmp_path, caplog, policy):
    takes, own = rows()[policy]  # as the documentation says
    taken = set(re.findall(r"`(\w+)`", takes)) & set(OTHER_VALUES)
    make_trainer(tmp_path, hiding_policy=policy, **OTHER_VALUES)
    for warning in reported(caplog):
        first, _, second = warning.partition(". It takes ")
        found = dict(re.findall(r"(\w+)=(\[.*?\]|[^,]+)", first.partition(": ")[2]))
        assert found == {name: str(value) for name, value in OTHER_VALUES.items() if name not in taken}
        assert set(re.findall(r"\w+", second)) >= taken | set(re.findall(r"`(\w+)`", own))
    assert len(reported(caplog)) == (taken != set(OTHER_VALUES))


def test_what_initial_pass_asks_for_is_no_option_of_another_policy(tmp_path, caplog):
    make_trainer(tmp_path, hiding_policy="forgetting", initial_pass=True, hiding_warmup_epochs=0)
    assert reported(caplog) == []


def test_with_nothing_to_hide_nothing_is_said_of_the_options(tmp_path, caplog):
    make_trainer(tmp_path, hiding_policy="none", num_train_epochs=1, num_samples=3, **OTHER_VALUES)
    assert reported(caplog) == []


# ---- A length beside a dataset that has one ----


@pytest.mark.parametrize("count", [100, 203, 204])
def test_num_samples_of_a_map_style_dataset(tmp_path, caplog, count):
    trainer = make_trainer(tmp_path, num_samples=count)
    expected = f"num_samples={count} has no effect: .* has 203 samples. Leave it out; to train on fewer, select them"
    assert [bool(re.search(expected, warning)) for warning in reported(caplog)] == [True] * (count != 203)
    assert len(trainer.train_dataset) == 203


def test_a_trainer_without_a_training_dataset_is_told_nothing(tmp_path, caplog):
    args = arguments(tmp_path, num_train_epochs=1, num_samples=3, hiding_policy="coin", move_back=False)
    KakurenboTrainer(Classifier(), args, eval_dataset=samples(20))
    assert reported(caplog) == []
