"""The methods and tasks that are compared: what there is, what each name stands for, and what is refused."""

import json
from dataclasses import replace

import pytest
import torch

from compare_toy import ARGUMENTS, EPOCHS, TOY, load
from hf_kakurenbo.compare import METHODS, NO_HIDING, TASKS, Method, Task, find_methods, find_tasks
from hf_kakurenbo.compare.comparison import DEFAULT_METHODS, DEFAULT_TASKS, QUICK_METHODS, QUICK_TASKS
from hf_kakurenbo.compare.methods import GROUPS
from hf_kakurenbo.compare.training import make_arguments, settings_of


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
    controls = set(names(GROUPS["controls"]))
    assert {name: METHODS[name].hides for name in METHODS} == {name: name not in controls for name in METHODS}


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
    with pytest.raises(ValueError, match="cannot name a task: use letters, digits"):
        replace(TOY, name=name)


@pytest.mark.parametrize("factor", ["epochs", "learning_rate"])
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


# ---- Tasks ----

SHAPES = {
    "digits": ((898, 1, 8, 8), 899, 10),
    "fdsl-cnn": ((3600, 1, 28, 28), 12000, 30),
    "fdsl-cnn-many": ((3600, 1, 28, 28), 12000, 120),
    "fdsl-vit": ((2000, 1, 24, 24), 10000, 10),
}


def rows(samples):
    [inputs] = [name for name in samples.columns if name in ("pixel_values", "input_ids")]
    return [row.numpy().tobytes() for row in samples.columns[inputs]]


def load_twice(task):
    """Two loads, the second without what the first left in memory."""
    first = task.load()
    cached = getattr(task.load, "func", task.load)
    cached.cache_clear()
    return first, task.load()


@pytest.mark.parametrize("name", SHAPES)
def test_images(name):
    shape, num_validation, classes = SHAPES[name]
    splits, again = load_twice(TASKS[name])
    assert splits is not again
    assert splits.train.columns["pixel_values"].shape == shape
    assert splits.validation.columns["pixel_values"].shape == (num_validation, *shape[1:])
    for split, same in ((splits.train, again.train), (splits.validation, again.validation)):
        assert split.columns["pixel_values"].dtype == torch.float32
        assert split.columns["labels"].unique().tolist() == list(range(classes))
        assert all(torch.equal(split.columns[column], same.columns[column]) for column in split.columns)
    assert len(set(rows(splits.train)) | set(rows(splits.validation))) == len(splits.train) + len(splits.validation)
    if name != "digits":
        pixels = splits.train.columns["pixel_values"]
        torch.testing.assert_close(torch.stack([pixels.mean(), pixels.std()]), torch.tensor([0.0, 1.0]))
    check_model(TASKS[name], splits, classes)


def check_model(task, splits, classes):
    batch = {name: column[:2] for name, column in splits.train.columns.items()}
    assert task.make_model()(**batch).logits.shape == (2, classes)


def test_texts():
    splits, again = load_twice(TASKS["text"])
    assert splits is not again
    for split, same in ((splits.train, again.train), (splits.validation, again.validation)):
        assert split.columns["input_ids"].shape == split.columns["attention_mask"].shape == (len(split), 32)
        assert split.columns["labels"].unique().tolist() == list(range(9))
        assert torch.equal(split.columns["attention_mask"], (split.columns["input_ids"] != 0).long())
        assert all(torch.equal(split.columns[column], same.columns[column]) for column in split.columns)
    assert splits.train.columns["labels"].bincount().tolist() == [150] * 9
    # Two pieces of source may say the same, as licences and boilerplate do.
    shared = set(rows(splits.train)) & set(rows(splits.validation))
    assert len(shared) < 0.01 * len(splits.validation)
    check_model(TASKS["text"], splits, 9)


def test_the_vocabulary_is_of_the_training_half_alone():
    splits = TASKS["text"].load()
    known = splits.train.columns["input_ids"].unique()
    assert set(splits.validation.columns["input_ids"].unique().tolist()) <= {1, *known.tolist()}
    assert known.max() < 2048
    unknown = {name: (split.columns["input_ids"] == 1).float().mean() for name, split in vars(splits).items()}
    assert unknown["validation"] > unknown["train"] > 0


def test_the_long_task_has_the_samples_of_the_short_one():
    short, long = TASKS["fdsl-cnn"], TASKS["fdsl-cnn-long"]
    assert short.load() is long.load()
    assert long.arguments == {**short.arguments, "num_train_epochs": 2 * short.arguments["num_train_epochs"]}


def test_tasks_are_found_by_name():
    assert find_tasks(["text", "digits"]) == [TASKS["text"], TASKS["digits"]]
    assert find_tasks(["compare_toy:TOY"]) == [TOY]
    for chosen in (DEFAULT_TASKS, QUICK_TASKS):
        assert len(find_tasks(chosen)) == len(chosen)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "There is no task 'digit'. Did you mean 'digits'? Tasks: digits, fdsl-cnn, "),
        ("zzz", "There is no task 'zzz'. Tasks: digits, fdsl-cnn, "),
        ("zzz", "; one of your own is named as 'package.module:attribute'."),
        ("no_such_module:TOY", "The task 'no_such_module:TOY' cannot be imported: No module named 'no_such_module'."),
        ("compare_toy:TOYS", "The task 'compare_toy:TOYS' cannot be imported: module 'compare_toy' has no attribute"),
        (":TOY", "The task ':TOY' cannot be imported: Empty module name."),
        ("compare_toy:load", "'compare_toy:load' is a function, not a `hf_kakurenbo.compare.Task`."),
    ],
)
def test_an_unknown_task(name, message):
    with pytest.raises(ValueError, match="ask") as raised:
        find_tasks(["digits", name])
    assert message in str(raised.value)


@pytest.mark.parametrize("missing", ["num_train_epochs", "learning_rate"])
def test_a_task_says_what_methods_multiply(missing):
    arguments = {name: value for name, value in ARGUMENTS.items() if name != missing}
    with pytest.raises(ValueError, match=f"The arguments of the task 'toy' lack {missing}"):
        Task("toy", load, TOY.make_model, arguments)


def test_a_task_has_no_max_steps():
    with pytest.raises(ValueError, match="The task 'toy' has max_steps; give num_train_epochs alone"):
        replace(TOY, arguments={**ARGUMENTS, "max_steps": 10})
