"""Every error that a wrong option meets: it names the option and the value, and says what was expected."""

import ast
import inspect
import re
import traceback
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from transformers import HfArgumentParser

import hf_kakurenbo
from hf_kakurenbo import KakurenboConfig
from hf_kakurenbo.config import default_options
from hf_kakurenbo.hiding import create_policy, list_policies, policies
from hf_kakurenbo.hiding import options as options_module
from hf_kakurenbo.hiding.compact_ledger import validate_precision
from hf_kakurenbo.hiding.policies import base
from hf_kakurenbo.hiding.schedule import FactorSchedule, HiddenFractionSchedule, validate_updates

PACKAGE = Path(hf_kakurenbo.__file__).parent
NAN = float("nan")
WAY_OUT = r"must|is not in [\[(]|Did you mean|Known policies|It takes|[Ss]et |[Gg]ive |[Ll]eave |[Ww]rite |[Dd]efine "
NOT_PICKLED = lambda outputs, inputs: None  # noqa: E731

# Options of the training arguments.
WRONG = [
    (
        {"max_hidden_fraction": 1.0},
        r"max_hidden_fraction=1.0 is not in \[0, 1\): .*0.3 for up to 30 %; 0 hides nothing",
    ),
    (
        {"max_hidden_fraction": "0.3"},
        r"max_hidden_fraction='0.3' must be a number, got str. .*in \[0, 1\). By default 0",
    ),
    ({"lr_compensation": "false"}, "lr_compensation='false' must be true or false, got str. .* By default True"),
    ({"num_samples": 99.5}, "num_samples=99.5 must be a whole number or None, got float. How many samples a training"),
    (
        {"statistics_fn": 3},
        r"statistics_fn=3 must be a function or a string or None, got int. .*\(outputs, inputs\) ->",
    ),
    ({"hiding_policy": "kakurenbu"}, "Unknown hiding_policy 'kakurenbu'. Did you mean 'kakurenbo'"),
    ({"hiding_policy": "xyz"}, "Unknown hiding_policy 'xyz'. Known policies: 'none'.*'kakurenbo'"),
    ({"initial_pass": True}, "initial_pass=True with hiding_warmup_epochs=1 .*Set hiding_warmup_epochs=0, or leave"),
    ({"never_hide_column": ""}, "never_hide_column='' is empty: give the name"),
    ({"min_visible_per_class": -1}, "min_visible_per_class=-1 must be a number of samples, 0 or more"),
    ({"initial_ledger": "out"}, "initial_ledger='out' with hiding_warmup_epochs=1 .*Set hiding_warmup_epochs=0, or le"),
    ({"initial_ledger": "out", "initial_pass": True, "hiding_warmup_epochs": 0}, "Leave one of them out"),
    ({"policy_options": "max_interval=4"}, "policy_options='max_interval=4' is no JSON.*write it as"),
    ({"policy_options": "[4]"}, r"policy_options='\[4\]' must be a dict"),
    (
        {"policy_options": {"max_interval": 4}},
        "'max_interval', which hiding_policy='kakurenbo' does not take.*It takes",
    ),
    (
        {"hiding_policy": "spaced_repetition", "policy_options": {"max_intervall": 4}},
        "policy_options has 'max_intervall'.*Did you mean 'max_interval'",
    ),
    (
        {"hiding_policy": "coin", "policy_options": {"hiding_probability": 2}},
        r"hiding_probability=2 is not in \[0, 1\)",
    ),
    ({"hidden_epoch_updates": "fewer"}, "hidden_epoch_updates='fewer' must be 'scaled'.*'constant'"),
    ({"ledger_precision": "half"}, "ledger_precision='half' must be 'full'.*'compact'.*'auto'"),
    ({"log_hidden_samples": "epochs"}, "log_hidden_samples='epochs' must be one of 'end', 'epoch', 'no'"),
    ({"sample_id_column": ""}, "sample_id_column='' is empty: give the name"),
    ({"num_samples": 0}, "num_samples=0 must be at least 1"),
    ({"statistics_fn": NOT_PICKLED}, "statistics_fn=.* cannot be pickled.*define it at the top level of a module"),
    ({"statistics_fn": "no.such.module:function"}, "names no function that can be imported.*write it as"),
    ({"statistics_fn": "test_option_errors:missing"}, "names no function that can be imported.*write it as"),
    ({"statistics_fn": "test_option_errors:WRONG"}, "names a list, and must name a function.*write it as"),
    ({"statistics_fn": "statistics"}, "is no task with a built-in rule.*package.module:function"),
    ({"statistics_fn": "causal_language_modelling"}, "Did you mean 'causal_language_modeling'"),
    ({"accuracy_threshold": 1.5}, r"accuracy_threshold=1.5 is not in \[0, 1\].*0.9 by default"),
    ({"fraction_milestones": [0.0, 0.5]}, r"fraction_milestones has 2 values.*4.*give one factor for each milestone"),
    ({"fraction_milestones": [0.0, 0.3, 0.6, 1.0]}, "fraction_milestones=.* must stay below 1"),
    *(
        ({"fraction_milestones": wrong, "fraction_factors": wrong}, "fraction_milestones=.* must start at 0 and rise")
        for wrong in ([0.0, 0.5, 0.5, 0.8], [0.1, 0.3, 0.6, 0.8], [0.0, NAN, 0.5, 0.8], [0.0, 0.5, NAN], [NAN], [])
    ),
    ({"fraction_factors": [1.0, 0.8, 0.6, 1.4]}, r"fraction_factors=.* must each be in \[0, 1\]"),
    ({"fraction_factors": [1.0, 0.8, NAN, 0.4]}, r"fraction_factors=.* must each be in \[0, 1\]"),
    ({"hiding_warmup_epochs": -1}, "hiding_warmup_epochs=-1 must be a whole number of epochs, 0 or more"),
    ({"refresh_interval": -1}, "refresh_interval=-1 must be a whole number of epochs: 1 refreshes.*0 never"),
]

# Options of each policy, as its constructor takes them.
WRONG_OF_POLICIES = [
    ("kakurenbo", {"max_hidden_fraction": -0.1}, "max_hidden_fraction=-0.1 is not in"),
    ("kakurenbo", {"confidence_threshold": 1.1}, r"confidence_threshold=1.1 is not in \[0, 1\].*0.7 in the paper"),
    ("kakurenbo", {"confidence_threshold": -0.1}, r"confidence_threshold=-0.1 is not in \[0, 1\]"),
    ("kakurenbo", {"refresh_interval": 1.5}, "refresh_interval=1.5 must be a whole number of epochs"),
    ("kakurenbo", {"hiding_warmup_epochs": 0.5}, "hiding_warmup_epochs=0.5 must be a whole number of epochs"),
    ("kakurenbo", {"hiding_warmup_epochs": float("inf")}, "hiding_warmup_epochs=inf must be a whole number of epochs"),
    ("kakurenbo", {"max_consecutive_hidden": 0}, "max_consecutive_hidden=0 must be a whole number of epochs, 1 or"),
    ("kakurenbo", {"max_consecutive_hidden": 256}, r"max_consecutive_hidden=256 is not in \[1, 255\]"),
    ("kakurenbo", {"refreshed_fraction": 0.0}, r"refreshed_fraction=0.0 is not in \(0, 1\].*refresh_interval=0"),
    ("kakurenbo", {"refreshed_fraction": 1.5}, "refreshed_fraction=1.5 is not in"),
    ("kakurenbo", {"refresh_first": "oldest"}, "refresh_first='oldest' must be one of 'least_confident', 'random'"),
    ("coin", {"hiding_probability": 1.0}, r"hiding_probability=1.0 is not in \[0, 1\)"),
    ("coin", {"confidence_threshold": 2}, r"confidence_threshold=2 is not in \[0, 1\]"),
    ("coin", {"hiding_warmup_epochs": -1}, "hiding_warmup_epochs=-1 must be a whole number of epochs, 0 or more"),
    ("coin", {"hiding_probabilty": 0.5}, "'hiding_probabilty', which hiding_policy='coin'.* mean 'hiding_probability'"),
    ("spaced_repetition", {"max_interval": 0}, "max_interval=0 must be a whole number of epochs, 1 or more"),
    ("spaced_repetition", {"max_interval": 256}, r"max_interval=256 is not in \[1, 255\]"),
    ("spaced_repetition", {"max_resting_fraction": -0.1}, "max_resting_fraction=-0.1 is not in"),
    ("spaced_repetition", {"random_pause": 1}, "random_pause=1 must be true or false"),
    ("spaced_repetition", {"refreshes": None}, "refreshes=None must be true or false"),
    ("spaced_repetition", {"random_first_pause": 0}, "random_first_pause=0 must be true or false"),
    ("spaced_repetition", {"resting_milestones": [0, 0.5]}, r"resting_milestones has 2 values.* resting_factors has 1"),
    (
        "spaced_repetition",
        {"resting_milestones": [0.5]},
        r"resting_milestones=\[0.5\] must start at 0 and rise.*such as",
    ),
    (
        "spaced_repetition",
        {"resting_milestones": [0, 1], "resting_factors": [1, 0]},
        r"resting_milestones=\[0, 1\] must stay below 1, the end",
    ),
    ("spaced_repetition", {"resting_factors": [1.5]}, r"resting_factors=\[1.5\] must each.*scale max_resting_fraction"),
    ("coin", {"weighted": 1}, "weighted=1 must be true or false"),
    ("order_dp", {"drawn_fraction": 0}, r"drawn_fraction=0 is not in \(0, 1\]"),
    ("order_dp", {"kept_fraction": 1.1}, r"kept_fraction=1.1 is not in \(0, 1\]"),
    ("order_dp", {"max_consecutive_hidden": 0}, "max_consecutive_hidden=0 must be a whole number of epochs, 1 or"),
    ("seta", {"dropped_fraction": 1}, r"dropped_fraction=1 is not in \[0, 1\)"),
    ("seta", {"groups": 2.5}, "groups=2.5 must be a whole number"),
    ("seta", {"groups": 0}, r"groups=0 is not in \[1, 1000\]"),
    ("seta", {"window_fraction": 0}, r"window_fraction=0 is not in \(0, 1\]"),
    ("seta", {"random_from": -1}, r"random_from=-1 is not in \[0, 1\]"),
    ("ies", {"max_second_difference": 0}, r"max_second_difference=0 is not in \(0, inf\).*0.001 for the authors"),
    ("ies", {"seed": 3}, "'seed', which hiding_policy='ies' does not take"),
    ("selective_backprop", {"beta": 0}, r"beta=0 is not in \(0, inf\)"),
    ("selective_backprop", {"refresh_interval": -1}, "refresh_interval=-1 must be a whole number of epochs"),
    ("forgetting", {"prune_at": 0}, r"prune_at=0 is not in \(0, 1\)"),
    ("infobatch", {"pruning_probability": 1}, r"pruning_probability=1 is not in \[0, 1\)"),
    ("infobatch", {"full_from": 1.5}, r"full_from=1.5 is not in \[0, 1\]"),
    ("random", {"max_hidden_fraction": 1.0}, "max_hidden_fraction=1.0 is not in"),
]  # fmt: skip


def config(tmp_path, **options):
    return KakurenboConfig(output_dir=str(tmp_path), **options)


def short(value):
    return str(value).partition(" at 0x")[0]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=short)
def test_a_wrong_option_is_refused_at_construction(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **options)


@pytest.mark.parametrize(("name", "options", "message"), WRONG_OF_POLICIES, ids=short)
def test_a_wrong_option_of_a_policy_is_refused_at_construction(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_policy(name, {}, options)


# ---- Every option of another type, wherever it comes from ----

# From the type of an option to values of other types; numbers are no switches, switches no numbers.
OTHER_TYPES = {
    bool: ["false", "True", 1, 0.0, None, [True], {}],
    int: ["1", True, None, [1], 1.5, NAN, float("inf"), {}, 1j],
    float: ["0.3", "high", True, None, [0.3], NAN, {}, 1j, object()],
    str: [3, True, None, ["kakurenbo"], {}, b"coin"],
    list: [0.5, "0.5", None, ["0", "1"], [None, 0.5], [True, False], {0.0: 1.0}, np.zeros(4)],
}
TYPES_OF_OPTIONS = {
    **{name: type(default) for name, default in default_options().items() if default is not None},
    "confidence_threshold": float,
    "num_samples": int,
}


@pytest.mark.parametrize("name", TYPES_OF_OPTIONS)
def test_a_value_of_another_type_is_refused(tmp_path, name):
    for value in OTHER_TYPES[TYPES_OF_OPTIONS[name]]:
        if value is None and default_options()[name] is None:
            continue
        error = error_of(config, tmp_path, **{name: value})
        assert f"{name}={value!r} " in str(error)
        assert re.search(WAY_OUT, str(error))


@pytest.mark.parametrize("value", [3, True, [1], {1: 2}.keys()], ids=str)
@pytest.mark.parametrize("name", ["policy_options", "statistics_fn"])
def test_a_value_of_none_of_several_types_is_refused(tmp_path, name, value):
    assert f"{name}={value!r} must be a " in str(error_of(config, tmp_path, **{name: value}))


def own_options():
    """Policy, option and type of each argument of each of the package's policies."""
    for name in sorted(set(list_policies())):
        policy = base._REGISTRY[name]
        if policy.__module__.startswith("hf_kakurenbo."):
            for option in inspect.signature(policy).parameters.values():
                kind = int if option.default is None else type(option.default)
                yield name, option.name, list if kind is tuple else kind


@pytest.mark.parametrize(("policy", "option", "kind"), list(own_options()))
def test_a_value_of_another_type_is_refused_by_the_policy(policy, option, kind):
    default = inspect.signature(base._REGISTRY[policy]).parameters[option].default
    for value in OTHER_TYPES[kind]:
        if value is None and default is None:
            continue
        for make in (create_policy, lambda name, _, options: base._REGISTRY[name](**options)):
            error = error_of(make, policy, {}, {option: value})
            assert f"{option}={value!r} " in str(error)
            assert re.search(WAY_OUT, str(error))


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"max_hidden_fraction": 0}, 0),
        ({"max_hidden_fraction": np.float32(0.5)}, 0.5),
        ({"max_hidden_fraction": Fraction(1, 3)}, Fraction(1, 3)),
        ({"hiding_warmup_epochs": 2.0}, 2),
        ({"hiding_warmup_epochs": np.int64(2)}, 2),
        ({"fraction_milestones": (0, 0.5), "fraction_factors": (1, 0.5)}, (0, 0.5)),
        ({"num_samples": 1.28e6}, 1_280_000),
    ],
    ids=str,
)
def test_another_type_of_the_same_meaning_is_accepted(tmp_path, options, found):
    assert getattr(config(tmp_path, **options), next(iter(options))) == found


FROM_FILES = [
    ('"max_hidden_fraction": "0.3"', "max_hidden_fraction: '0.3'", "max_hidden_fraction='0.3' must be a number"),
    # YAML 1.1 takes a number without a point for text.
    ('"max_hidden_fraction": "3e-1"', "max_hidden_fraction: 3e-1", "max_hidden_fraction='3e-1' must be a number"),
    ('"max_hidden_fraction": null', "max_hidden_fraction:", "max_hidden_fraction=None must be a number"),
    ('"max_hidden_fraction": NaN', "max_hidden_fraction: .nan", "max_hidden_fraction=nan"),
    ('"lr_compensation": "no"', "lr_compensation: 'no'", "lr_compensation='no' must be true or false"),
    ('"fraction_factors": 0.5', "fraction_factors: 0.5", "fraction_factors=0.5 must be a list of numbers"),
    ('"num_samples": "100"', "num_samples: '100'", "num_samples='100' must be a whole number"),
    ('"policy_options": {"seed": "a"}', "policy_options: {seed: a}", "seed='a' must be a whole number"),
    ('"policy_options": {"sed": 1}', "policy_options: {sed: 1}", "Did you mean 'seed'"),
]


@pytest.mark.parametrize(("as_json", "as_yaml", "message"), FROM_FILES, ids=[case[1] for case in FROM_FILES])
def test_a_wrong_option_in_a_file_is_refused(tmp_path, as_json, as_yaml, message):
    parser = HfArgumentParser(KakurenboConfig)
    (tmp_path / "options.json").write_text(f'{{"output_dir": "out", {as_json}}}', encoding="utf-8")
    (tmp_path / "options.yaml").write_text(f"output_dir: out\n{as_yaml}\n", encoding="utf-8")
    for parse, file in ((parser.parse_json_file, "options.json"), (parser.parse_yaml_file, "options.yaml")):
        with pytest.raises(ValueError, match=re.escape(message)):
            parse(str(tmp_path / file))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_hidden_fraction", "nan"], "max_hidden_fraction=nan is not in"),
        (["--max_hidden_fraction", "-0.1"], "max_hidden_fraction=-0.1 is not in"),
        (["--fraction_milestones", "0", "nan"], "fraction_milestones has 2 values"),
        (["--refresh_interval", "-1"], "refresh_interval=-1 must be"),
        (["--num_samples", "-5"], "num_samples=-5 must be at least 1"),
        (["--policy_options", '{"sed": 1}'], "Did you mean 'seed'"),
    ],
    ids=str,
)
def test_a_wrong_flag_ends_with_the_message(tmp_path, flags, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        HfArgumentParser(KakurenboConfig).parse_args_into_dataclasses(["--output_dir", str(tmp_path), *flags])


# ---- The walk: each error is met, names its option and a way out ----


def raised_in(code):
    """(file, first line, last line) of each `raise` statement of a function, a class or a module."""
    start = 1 if inspect.ismodule(code) else inspect.getsourcelines(code)[1]
    tree = ast.parse(inspect.getsource(code))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    return {(inspect.getfile(code), node.lineno + start - 1, node.end_lineno + start - 1) for node in found}


def all_raised():
    """The `raise` statements that an option can meet before there is a trainer."""
    modules = [module for module in vars(policies).values() if inspect.ismodule(module)]
    modules = [module for module in modules if module.__name__.startswith(policies.__name__)]
    checks = [FactorSchedule, HiddenFractionSchedule, validate_precision, validate_updates]
    parts = [hf_kakurenbo.config, options_module, *modules, *checks]
    return set().union(*map(raised_in, parts)) - raised_in(base.register_policy)


def error_of(function, *args, **options):
    try:
        function(*args, **options)
    except ValueError as error:
        return error
    pytest.fail(f"{options} is accepted")


def test_each_error_is_met_and_names_its_option_and_a_way_out(tmp_path):
    met = set()
    errors = [(options, error_of(config, tmp_path, **options)) for options, _ in WRONG]
    errors += [(options, error_of(create_policy, name, {}, options)) for name, options, _ in WRONG_OF_POLICIES]
    for options, error in errors:
        inner = [name for value in options.values() if isinstance(value, dict) for name in value]
        assert any(name in str(error) for name in [*options, *inner]), error
        assert re.search(WAY_OUT, str(error)), error
        frame = traceback.extract_tb(error.__traceback__)[-1]
        met.add((frame.filename, frame.lineno))
    missing = [
        f"{Path(file).relative_to(PACKAGE)}:{first}"
        for file, first, last in all_raised()
        if not any((file, line) in met for line in range(first, last + 1))
    ]
    assert not missing, f"no case in WRONG or WRONG_OF_POLICIES meets {missing}"
