"""The options: their defaults, their flags, their checks."""

import functools
import json
from dataclasses import dataclass, fields

import pytest
from transformers import HfArgumentParser, Seq2SeqTrainingArguments, TrainingArguments

from hf_kakurenbo import HidingArguments, KakurenboConfig, SampleStatistics
from hf_kakurenbo.config import create_configured_policy, hiding_arguments, resolve_statistics_function

DEFAULTS = {
    "hiding_policy": "kakurenbo",
    "max_hidden_fraction": 0.3,
    "fraction_milestones": [0.0, 0.3, 0.6, 0.8],
    "fraction_factors": [1.0, 0.8, 0.6, 0.4],
    "hiding_warmup_epochs": 1,
    "confidence_threshold": None,
    "move_back": True,
    "accuracy_threshold": 0.9,
    "lr_compensation": True,
    "refresh_interval": 1,
    "initial_pass": False,
    "policy_options": None,
    "hidden_epoch_updates": "scaled",
    "ledger_precision": "auto",
    "never_hide_column": None,
    "min_visible_per_class": 0,
    "ledger_history": False,
    "log_hidden_samples": "no",
    "initial_ledger": None,
    "sample_id_column": "sample_id",
    "num_samples": None,
    "statistics_fn": None,
}


def statistics(outputs, inputs):
    return SampleStatistics(*outputs)


def parse(tmp_path, *flags):
    [config] = HfArgumentParser(KakurenboConfig).parse_args_into_dataclasses(["--output_dir", str(tmp_path), *flags])
    return config


def test_defaults(tmp_path):
    options = parse(tmp_path)
    assert {option.name: getattr(options, option.name) for option in fields(HidingArguments)} == DEFAULTS


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (["--hiding_policy", "none"], "hiding_policy", "none"),
        (["--max_hidden_fraction", "0.5"], "max_hidden_fraction", 0.5),
        (["--hiding_warmup_epochs", "3"], "hiding_warmup_epochs", 3),
        (["--confidence_threshold", "0.9"], "confidence_threshold", 0.9),
        (["--no_move_back"], "move_back", False),
        (["--move_back", "false"], "move_back", False),
        (["--no_lr_compensation"], "lr_compensation", False),
        (["--refresh_interval", "2"], "refresh_interval", 2),
        (["--refresh_interval", "0"], "refresh_interval", 0),
        (["--initial_pass", "--hiding_warmup_epochs", "0"], "initial_pass", True),
        (
            ["--hiding_policy", "spaced_repetition", "--policy_options", '{"max_interval": 4}'],
            "policy_options",
            '{"max_interval": 4}',
        ),
        (["--ledger_precision", "compact"], "ledger_precision", "compact"),
        (["--never_hide_column", "rare"], "never_hide_column", "rare"),
        (["--min_visible_per_class", "5"], "min_visible_per_class", 5),
        (["--ledger_history"], "ledger_history", True),
        (["--initial_ledger", "out", "--hiding_warmup_epochs", "0"], "initial_ledger", "out"),
        (["--log_hidden_samples", "epoch"], "log_hidden_samples", "epoch"),
        (["--sample_id_column", "row"], "sample_id_column", "row"),
        (["--num_samples", "1000"], "num_samples", 1000),
        (["--statistics_fn", "test_config:statistics"], "statistics_fn", "test_config:statistics"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_flags(tmp_path, flags, name, value):
    assert getattr(parse(tmp_path, *flags), name) == value


def test_flags_of_lists(tmp_path):
    options = parse(tmp_path, "--fraction_milestones", "0", "0.5", "--fraction_factors", "1", "0.5")
    assert (options.fraction_milestones, options.fraction_factors) == ([0.0, 0.5], [1.0, 0.5])


def test_every_flag_has_a_help_text():
    assert all(option.metadata["help"] for option in fields(HidingArguments))


@pytest.mark.parametrize(
    ("policy", "threshold"), [("kakurenbo", 0.7), ("spaced_repetition", 0.9), ("coin", 0.95)], ids=str
)
def test_a_confidence_threshold_that_is_not_given_is_the_policys_own(tmp_path, policy, threshold):
    assert create_configured_policy(parse(tmp_path, "--hiding_policy", policy)).confidence_threshold == threshold
    given = parse(tmp_path, "--hiding_policy", policy, "--confidence_threshold", "0.5")
    assert create_configured_policy(given).confidence_threshold == 0.5


@pytest.mark.parametrize("options", ['{"max_interval": 4, "seed": 9}', {"max_interval": 4, "seed": 9}], ids=type)
def test_options_of_the_policy_alone(tmp_path, options):
    config = KakurenboConfig(output_dir=str(tmp_path), hiding_policy="spaced_repetition", policy_options=options)
    policy = create_configured_policy(config)
    assert (policy.max_interval, policy.seed) == (4, 9)
    assert json.loads(config.to_json_string())["policy_options"] == options


@pytest.mark.parametrize(("flags", "seed"), [(["--seed", "5"], 5), (["--seed", "5", "--data_seed", "0"], 0)], ids=str)
def test_chance_is_of_the_seed_of_the_data(tmp_path, flags, seed):
    assert create_configured_policy(parse(tmp_path, "--hiding_policy", "random", *flags)).seed == seed


@pytest.mark.parametrize("function", [statistics, "test_config:statistics"], ids=["function", "name"])
def test_a_statistics_function_is_found_and_written_down_by_name(tmp_path, function):
    config = KakurenboConfig(output_dir=str(tmp_path), statistics_fn=function)
    assert resolve_statistics_function(config.statistics_fn) is statistics
    assert json.loads(config.to_json_string())["statistics_fn"] == "test_config:statistics"


def test_a_statistics_function_without_a_name_is_written_down_as_it_is_shown(tmp_path):
    config = KakurenboConfig(output_dir=str(tmp_path), statistics_fn=functools.partial(statistics, inputs=None))
    assert json.loads(config.to_json_string())["statistics_fn"].startswith("functools.partial(<function statistics")


def test_other_training_arguments_with_the_options(tmp_path):
    @dataclass
    class KakurenboSeq2SeqConfig(HidingArguments, Seq2SeqTrainingArguments):
        pass

    config = KakurenboSeq2SeqConfig(output_dir=str(tmp_path), max_hidden_fraction=0.2, predict_with_generate=True)
    assert hiding_arguments(config) is config
    assert config.to_dict()["max_hidden_fraction"] == 0.2
    with pytest.raises(ValueError, match="confidence_threshold=2"):
        KakurenboSeq2SeqConfig(output_dir=str(tmp_path), confidence_threshold=2)


def test_plain_arguments_get_the_defaults(tmp_path):
    options = hiding_arguments(TrainingArguments(output_dir=str(tmp_path)))
    assert {option.name: getattr(options, option.name) for option in fields(HidingArguments)} == DEFAULTS
