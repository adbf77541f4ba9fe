"""The methods that are compared: what there is, what each name stands for, and what is refused."""

import json
from dataclasses import replace

import pytest

from compare_toy import ARGUMENTS, EPOCHS, TOY
from hf_kakurenbo.compare import METHODS, NO_HIDING, TASKS, Method, find_methods
from hf_kakurenbo.compare.comparison import DEFAULT_METHODS, QUICK_METHODS
from hf_kakurenbo.compare.methods import GROUPS, changed
from hf_kakurenbo.compare.training import make_arguments, settings_of
from hf_kakurenbo.hiding import create_policy


def names(methods):
    return [method.name for method in methods]


# ---- Methods ----


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_method_is_a_valid_configuration_on_every_task(task, tmp_path):
    for method in METHODS.values():
        settings = settings_of(task, method, None if method.share_of is None else 0.2)
        arguments = make_arguments(settings, 3, str(tmp_path))
        assert (arguments.seed, arguments.hiding_policy) == (3, method.options["hiding_policy"])
        assert json.loads(json.dumps(settings)) == settings, "a record must give it back as it is"


def test_a_name_stands_for_one_method():
    for group in GROUPS.values():
        assert len(set(names(group))) == len(group)
        assert all(METHODS[method.name] == method for method in group)
    different = {repr(replace(method, name="same")) for method in METHODS.values()}
    assert len(different) == len(METHODS)


def test_the_method_that_gives_the_share_is_there_before_and_hides():
    for method in METHODS.values():
        if method.share_of is not None:
            assert METHODS[method.share_of].share_of is None
            assert METHODS[method.share_of].hides


def test_controls_hide_nothing_and_the_others_do():
    controls = {*names(GROUPS["controls"]), "shorter-0.7@batch=0.7"}
    assert {name: METHODS[name].hides for name in METHODS} == {name: name not in controls for name in METHODS}


def policy_of(name):
    return create_policy(METHODS[name].options["hiding_policy"], {}, METHODS[name].options["policy_options"])


@pytest.mark.parametrize(
    ("name", "caps"),
    [
        ("spaced_repetition@cap-by-progress", {0.1: 0, 0.15: 75, 0.3: 300, 0.5: 600, 0.8: 600, 0.85: 0, 0.95: 0}),
        ("spaced_repetition@cap=1+full-tail", {0.0: 1000, 0.85: 1000, 0.9: 0}),
        ("duty-cycle", {0.0: 1000, 0.9: 1000}),
        ("rank-gate", {0.0: 150, 0.9: 150}),
    ],
)
def test_a_rule_hides_at_most_so_many_of_a_thousand(name, caps):
    policy = policy_of(name)
    assert {progress: policy.most_hidden(1000, 5, progress) for progress in caps} == caps


def test_a_change_of_a_method_keeps_what_it_has():
    method = Method("bold", {"hiding_policy": "coin", "policy_options": {"weighted": True}}, epochs=1.2)
    assert changed(method, "+p=0.5", {"hiding_probability": 0.5}, move_back=False) == Method(
        "bold+p=0.5",
        {
            "hiding_policy": "coin",
            "policy_options": {"weighted": True, "hiding_probability": 0.5},
            "move_back": False,
        },
        epochs=1.2,
    )
    assert method.options == {"hiding_policy": "coin", "policy_options": {"weighted": True}}
    assert changed(Method("plain"), "+seen").options == {}


def test_methods_are_found_by_group_and_by_name_each_once():
    controls, field = names(GROUPS["controls"]), names(GROUPS["field"])
    assert names(find_methods(["controls", "field"])) == controls + field
    assert names(find_methods(["infobatch", "kakurenbo", "infobatch"])) == ["no-hiding", "infobatch", "kakurenbo"]
    assert names(find_methods([])) == ["no-hiding"]
    assert len(find_methods(GROUPS)) == len(METHODS)
    for chosen in (DEFAULT_METHODS, QUICK_METHODS):
        assert len(find_methods(chosen)) > len(chosen)


def test_methods_of_a_file(tmp_path):
    file = tmp_path / "mine.json"
    mine = {"name": "bold", "options": {"max_hidden_fraction": 0.6}, "epochs": 1.2, "learning_rate": 0.9}
    file.write_text(json.dumps([mine, {"name": "plain"}, {"name": "as-random", "share_of": "bold"}]))
    assert find_methods([str(file), "kakurenbo"]) == [
        NO_HIDING,
        Method("bold", {"max_hidden_fraction": 0.6}, 1.2, 0.9),
        Method("plain"),
        Method("as-random", share_of="bold"),
        METHODS["kakurenbo"],
    ]
    assert Method("plain").hides, "the policy that the configuration has by itself"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "Expecting value"),
        ('{"name": "bold"}', "argument after ** must be a mapping"),
        ("[3]", "argument after ** must be a mapping"),
        ("3", "not iterable"),
        ('[{"options": {}}]', "missing 1 required positional argument: 'name'"),
        ('[{"name": "bold", "option": {}}]', "unexpected keyword argument 'option'"),
        ('[{"name": 3}]', "expected string"),
        ('[{"name": "a/b"}]', "'a/b' cannot name a method: use letters, digits and ._=@+-, as in 'tau=0.9'"),
        ('[{"name": "bold", "epochs": 0}]', "epochs=0 of 'bold' is a factor, above 0"),
        ('[{"name": "bold", "epochs": "long"}]', "'>' not supported"),
    ],
)
def test_a_file_that_is_no_list_of_methods(tmp_path, text, message):
    file = tmp_path / "mine.json"
    file.write_text(text)
    with pytest.raises(ValueError, match="is no list of methods") as raised:
        find_methods([str(file)])
    assert str(file) in str(raised.value)
    assert message in str(raised.value)
    assert str(raised.value).endswith('write [{"name": "bold", "options": {"max_hidden_fraction": 0.6}}, ...].')


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mine\.json"):
        find_methods([str(tmp_path / "mine.json")])


@pytest.mark.parametrize("name", ["kakurenbo", "no-hiding"])
def test_two_different_methods_of_one_name(tmp_path, name):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps([{"name": name, "options": {"max_hidden_fraction": 0.6}}]))
    with pytest.raises(ValueError, match=rf"has another method of the name '{name}': give it a name of its own"):
        find_methods(["field", str(file)])


@pytest.mark.parametrize(
    ("name", "hint"),
    [("kakurembo", "Did you mean 'kakurenbo'?"), ("control", "Did you mean 'controls'?"), ("zzz", "'zzz'. Groups")],
)
def test_an_unknown_method(name, hint):
    with pytest.raises(ValueError, match=f"There is no method '{name}'") as raised:
        find_methods(["field", name])
    assert hint in str(raised.value)
    assert "Groups of methods: controls, field, kakurenbo-parts, " in str(raised.value)
    assert '.json file: [{"name": ' in str(raised.value)


@pytest.mark.parametrize("name", ["", "..", "a/b", "-a", "a b", "a\n", "é"])
def test_a_name_that_cannot_be_a_folder(name):
    with pytest.raises(ValueError, match="cannot name a method: use letters, digits"):
        Method(name)


@pytest.mark.parametrize("factor", ["epochs", "learning_rate", "batch_size"])
@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_a_factor_must_be_above_0(factor, value):
    with pytest.raises(ValueError, match=rf"{factor}={value} of 'bold' is a factor, above 0"):
        Method("bold", **{factor: value})


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("learning_rate", "give `learning_rate`, a factor of the task's, beside the options"),
        ("num_train_epochs", "give `epochs`, a factor"),
        ("max_steps", "give `epochs`, a factor"),
        ("seed", "the same for every method"),
        ("output_dir", "leaves nothing but its record"),
    ],
)
def test_what_is_decided_elsewhere_is_no_option(option, instead):
    with pytest.raises(ValueError, match=f"{option} is no option of the method 'bold': .*{instead}"):
        Method("bold", {option: 1})


# ---- Settings ----


def test_a_method_changes_the_arguments_of_the_task():
    method = Method("half", {"lr_scheduler_type": "linear", "per_device_train_batch_size": 4}, 0.5, 1.4)
    assert settings_of(TOY, method) == {
        **ARGUMENTS,
        "lr_scheduler_type": "linear",
        "per_device_train_batch_size": 4,
        "num_train_epochs": 0.5 * EPOCHS,
        "learning_rate": 1.4 * ARGUMENTS["learning_rate"],
    }
    assert TOY.arguments == ARGUMENTS


def test_fewer_epochs_with_as_many_updates():
    size = ARGUMENTS["per_device_train_batch_size"]
    settings = settings_of(TOY, Method("smaller", NO_HIDING.options, 0.7, batch_size=0.7))
    assert settings["per_device_train_batch_size"] == round(0.7 * size)
    assert settings_of(TOY, Method("smallest", batch_size=1e-9))["per_device_train_batch_size"] == 1


@pytest.mark.parametrize("method", GROUPS["constant-updates"], ids=lambda method: method.name)
def test_constant_updates_change_nothing_else(method):
    if method.batch_size != 1:
        return
    other = METHODS.get(method.name.removesuffix("+constant"))
    assert method.options["hidden_epoch_updates"] == "constant"
    assert {**other.options, "hidden_epoch_updates": "constant"} == method.options


@pytest.mark.parametrize(
    ("task", "method", "share", "fraction"),
    [
        # The share of all epochs is hidden in those after the warm-up.
        (TASKS["digits"], METHODS["random"], 0.19, 0.19 * 20 / 19),
        (TASKS["digits"], Method("late", {"hiding_warmup_epochs": 10}), 0.19, 0.38),
        (TASKS["digits"], Method("long", epochs=2.0), 0.39, 0.4),
        (TASKS["digits"], Method("most", {"hiding_warmup_epochs": 19}), 0.19, 0.99),
        (TASKS["digits"], METHODS["random"], 0.0, 0.0),
    ],
    ids=["random", "late", "long", "most", "nothing"],
)
def test_a_share_is_hidden_in_every_epoch_alike(task, method, share, fraction):
    settings = settings_of(task, method, share)
    assert settings["max_hidden_fraction"] == pytest.approx(fraction)
    assert (settings["fraction_milestones"], settings["fraction_factors"]) == ([0.0], [1.0])


def test_a_share_needs_an_epoch_to_hide_in():
    with pytest.raises(ValueError, match=r"hiding_warmup_epochs=3 leaves none of 3.0 epochs to hide in: give more"):
        settings_of(TOY, Method("late", {"hiding_warmup_epochs": 3}), 0.2)
