"""The tasks that methods are compared on: their data, their models, and how they are found."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import set_seed

from compare_toy import ARGUMENTS, TOY, Toy, load
from hf_kakurenbo.compare import TASKS, Splits, Task, find_tasks
from hf_kakurenbo.compare.comparison import DEFAULT_TASKS, QUICK_TASKS
from hf_kakurenbo.compare.quiet import QUIET
from hf_kakurenbo.compare.tasks.continued import model_knowing_half
from hf_kakurenbo.compare.tasks.models import small_resnet
from hf_kakurenbo.compare.tasks.toys import Samples, digits, images_from_formulas, source_snippets
from toy import same_tensors

# ---- Data ----

SHAPES = {
    "digits": ((898, 1, 8, 8), 899, 10),
    "fdsl-cnn": ((3600, 1, 28, 28), 12000, 30),
    "fdsl-cnn-many": ((3600, 1, 28, 28), 12000, 120),
    "fdsl-vit": ((2000, 1, 24, 24), 10000, 10),
}


def rows(samples: Samples) -> set[bytes]:
    [inputs] = [name for name in samples.columns if name in ("pixel_values", "input_ids")]
    return {row.numpy().tobytes() for row in samples.columns[inputs]}


def load_afresh(load: Any) -> Splits:
    """Load without what an earlier load left in memory."""
    if isinstance(load, partial):
        return load.func.__wrapped__(*load.args, **load.keywords)
    return load.__wrapped__()


def check_model(task: Task, splits: Splits, classes: int) -> None:
    batch = {name: column[:2] for name, column in splits.train.columns.items()}
    assert task.make_model()(**batch).logits.shape == (2, classes)


@pytest.mark.parametrize("name", SHAPES)
def test_images(name):
    shape, num_validation, classes = SHAPES[name]
    splits = TASKS[name].load()
    assert splits.train.columns["pixel_values"].shape == shape
    assert splits.validation.columns["pixel_values"].shape == (num_validation, *shape[1:])
    for split in (splits.train, splits.validation):
        assert split.columns["pixel_values"].dtype == torch.float32
        assert split.columns["labels"].unique().tolist() == list(range(classes))
    assert len(rows(splits.train)) == len(splits.train)
    assert rows(splits.train).isdisjoint(rows(splits.validation))
    check_model(TASKS[name], splits, classes)


@pytest.mark.parametrize(
    "load",
    [
        digits,
        partial(images_from_formulas, "fractaldb-1k", 3, 4, 5, image_size=28, points=600, patches=False),
        partial(images_from_formulas, "visualatom-1k", 3, 4, 5, image_size=24),
        partial(source_snippets, 4, 5),
    ],
    ids=["digits", "fractals", "atoms", "snippets"],
)
def test_a_second_load_gives_the_same(load):
    first = load()
    assert load() is first
    again = load_afresh(load)
    assert again is not first
    assert same_tensors(first.train.columns, again.train.columns)
    assert same_tensors(first.validation.columns, again.validation.columns)


def test_images_from_formulas_are_scaled_by_the_training_images():
    splits = images_from_formulas("fractaldb-1k", 3, 4, 5, image_size=28)
    pixels = splits.train.columns["pixel_values"]
    torch.testing.assert_close(torch.stack([pixels.mean(), pixels.std()]), torch.tensor([0.0, 1.0]))
    # Black is the same number in both.
    assert splits.validation.columns["pixel_values"].min() == pixels.min()


def test_texts():
    splits = TASKS["text"].load()
    for split in (splits.train, splits.validation):
        assert split.columns["input_ids"].shape == split.columns["attention_mask"].shape == (len(split), 32)
        assert split.columns["labels"].unique().tolist() == list(range(9))
        assert torch.equal(split.columns["attention_mask"], (split.columns["input_ids"] != 0).long())
    assert splits.train.columns["labels"].bincount().tolist() == [150] * 9
    # Two snippets may say the same, as licences and boilerplate do.
    assert len(rows(splits.train) & rows(splits.validation)) < 0.01 * len(splits.validation)
    check_model(TASKS["text"], splits, 9)


def test_the_vocabulary_is_of_the_training_half_alone():
    splits = TASKS["text"].load()
    known = splits.train.columns["input_ids"].unique()
    assert set(splits.validation.columns["input_ids"].unique().tolist()) <= {1, *known.tolist()}
    assert known.max() < 2048
    unknown = {name: (split.columns["input_ids"] == 1).float().mean() for name, split in vars(splits).items()}
    assert unknown["validation"] > unknown["train"] > 0


def test_a_python_without_sources(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    (tmp_path / "asyncio").mkdir()
    (tmp_path / "asyncio" / "events.pyc").write_bytes(b"compiled")
    with pytest.raises(RuntimeError) as raised:
        source_snippets(1, 1)
    assert str(raised.value) == (
        f"The task 'text' needs the sources of Python's standard library at {tmp_path / 'asyncio'}; choose another "
        "task."
    )


@pytest.mark.parametrize("name", ["fdsl-cnn-long", "fdsl-cnn-augmented", "fdsl-cnn-continued"])
def test_tasks_that_have_the_samples_and_all_but_the_epochs_of_another(name):
    short, task = TASKS["fdsl-cnn"], TASKS[name]
    assert task.load is short.load
    assert task.arguments == {**short.arguments, "num_train_epochs": task.arguments["num_train_epochs"]}


def test_the_long_task_is_twice_as_long():
    assert TASKS["fdsl-cnn-long"].arguments["num_train_epochs"] == 2 * TASKS["fdsl-cnn"].arguments["num_train_epochs"]


# ---- The model without BatchNorm ----


def test_group_norm_is_in_every_place_of_batch_norm():
    set_seed(0)
    batched = dict(TASKS["fdsl-cnn"].make_model().named_modules())
    assert TASKS["fdsl-cnn-group-norm"].load is TASKS["fdsl-cnn"].load
    set_seed(0)
    grouped = dict(TASKS["fdsl-cnn-group-norm"].make_model().named_modules())
    places = [name for name, layer in batched.items() if isinstance(layer, nn.BatchNorm2d)]
    assert len(places) == 9
    assert grouped.keys() == batched.keys()
    for name, layer in grouped.items():
        assert isinstance(layer, nn.GroupNorm) == (name in places)
        assert not isinstance(layer, nn.GroupNorm) or layer.num_channels == 8 * layer.num_groups
    convolutions = [name for name, layer in batched.items() if isinstance(layer, nn.Conv2d)]
    assert all(torch.equal(grouped[name].weight, batched[name].weight) for name in convolutions)


# ---- The model that augments ----


def images_looked_at(model: nn.Module, images: Tensor) -> Tensor:
    """What reaches the layers of a model when it is given some images."""
    seen: list[Tensor] = []
    hook = model.resnet.register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    model(pixel_values=images, labels=torch.zeros(len(images), dtype=torch.long))
    hook.remove()
    [looked_at] = seen
    return looked_at


def test_images_are_moved_by_a_few_pixels_in_training():
    set_seed(0)
    model = small_resnet(3, augments=True).train()
    # A point in the middle stays there when the image is mirrored.
    image = torch.zeros(1, 1, 17, 17)
    image[..., 8, 8] = 1
    places = {tuple(images_looked_at(model, image.repeat(2, 1, 1, 1))[0, 0].nonzero()[0].tolist()) for _ in range(60)}
    assert len(places) > 10
    assert all(5 <= place <= 11 for pair in places for place in pair)


def test_images_are_mirrored_in_training():
    set_seed(0)
    model = small_resnet(3, augments=True).train()
    # A ramp that was moved has one jump; all other steps tell its direction.
    for dim in (2, 3):
        ramp = torch.arange(12.0).reshape((1, 1, 12, 1) if dim == 2 else (1, 1, 1, 12)).expand(2, 1, 12, 12)
        steps = [images_looked_at(model, ramp).diff(dim=dim).median().item() for _ in range(20)]
        assert set(steps) == {-1.0, 1.0}


def test_all_images_of_a_batch_are_augmented_in_the_same_way():
    set_seed(0)
    model = small_resnet(3, augments=True).train()
    images = torch.randn(1, 1, 12, 10).repeat(4, 1, 1, 1)
    augmented = [images_looked_at(model, images) for _ in range(10)]
    assert all(batch.shape == images.shape and torch.equal(batch, batch[:1].expand_as(batch)) for batch in augmented)
    assert all(torch.equal(batch.flatten().sort()[0], images.flatten().sort()[0]) for batch in augmented)
    assert len({batch.numpy().tobytes() for batch in augmented}) > 1


@pytest.mark.parametrize(("augments", "training"), [(True, False), (False, True), (False, False)])
def test_no_other_images_are_augmented(augments, training):
    set_seed(0)
    model = small_resnet(3, augments=augments).train(training)
    images = torch.randn(4, 1, 12, 10)
    assert all(torch.equal(images_looked_at(model, images), images) for _ in range(5))


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_of_the_model_that_augments_is_that_of_classification(training):
    set_seed(0)
    model = small_resnet(3, augments=True).train(training)
    labels = torch.tensor([0, 2, 1, 2])
    outputs = model(pixel_values=torch.randn(4, 1, 8, 8), labels=labels)
    assert outputs.logits.shape == (4, 3)
    torch.testing.assert_close(outputs.loss, nn.functional.cross_entropy(outputs.logits, labels))


def test_the_model_that_augments_begins_with_the_weights_of_the_other():
    weights = []
    for augments in (True, False):
        set_seed(0)
        weights.append(small_resnet(3, augments=augments).state_dict())
    assert same_tensors(*weights)


# ---- The model that knows half of the samples ----

BEFORE: tuple[tuple[str, Any], ...] = tuple(
    {
        "num_train_epochs": 3,
        "learning_rate": 0.05,
        "per_device_train_batch_size": 8,
        "use_cpu": True,
        **QUIET,
    }.items()
)


def load_changed(rows: slice) -> Splits:
    """The toy samples, some of them with opposite features."""
    splits = load()
    columns = dict(splits.train.columns)
    columns["x"][rows] *= -1
    return replace(splits, train=Samples(**columns))


def weights_after(load: Callable[[], Splits], seed: int = 0) -> Mapping[str, Tensor]:
    set_seed(seed)
    return model_knowing_half(load, Toy, BEFORE).state_dict()


def test_a_model_knows_the_same_half_whatever_the_seed():
    first = weights_after(load, seed=1)
    assert same_tensors(first, weights_after(load, seed=2))
    assert same_tensors(first, weights_after(partial(load), seed=3)), "of a training of its own"


def test_a_model_knows_every_second_sample():
    weights = weights_after(load)
    assert same_tensors(weights, weights_after(partial(load_changed, slice(1, None, 2))))
    assert not same_tensors(weights, weights_after(partial(load_changed, slice(0, None, 2))))


def test_a_model_that_knows_half_was_trained():
    half = {name: column[::2] for name, column in load().train.columns.items()}
    set_seed(0)
    new = Toy().eval()
    trained = Toy().eval()
    trained.load_state_dict(weights_after(load))
    assert trained(**half)["loss"] < 0.9 * new(**half)["loss"]


def test_what_is_made_of_the_known_half_does_not_change_it():
    made = model_knowing_half(load, Toy, BEFORE)
    nn.init.zeros_(made.head.weight)
    assert weights_after(load)["head.weight"].any()


@pytest.mark.parametrize("name", ["digits", "fdsl-cnn", "text"])
def test_a_continued_task_was_trained_as_the_other_is(name):
    short, continued = TASKS[name], TASKS[f"{name}-continued"]
    assert continued.make_model.func is model_knowing_half
    before = {**short.arguments, **QUIET, "dataloader_drop_last": True}
    assert continued.make_model.args == (short.load, short.make_model, tuple(before.items()))


# ---- The tasks by name ----


def test_tasks_are_found_by_name():
    assert find_tasks(["text", "digits"]) == [TASKS["text"], TASKS["digits"]]
    assert find_tasks(["compare_toy:TOY"]) == [TOY]
    for chosen in (DEFAULT_TASKS, QUICK_TASKS):
        assert len(find_tasks(chosen)) == len(chosen)


WAY_OUT = (
    ". It is looked for in the current folder and among the installed packages; name a `Task` object, as "
    "'package.module:attribute'."
)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "There is no task 'digit'. Did you mean 'digits'? Tasks: digits, fdsl-cnn, "),
        ("zzz", "There is no task 'zzz'. Tasks: digits, fdsl-cnn, "),
        ("zzz", "; one of your own is named as 'package.module:attribute'."),
        ("no_such:TOY", "The task 'no_such:TOY' cannot be imported: No module named 'no_such'" + WAY_OUT),
        ("compare_toy:TOYS", "The task 'compare_toy:TOYS' cannot be imported: module 'compare_toy' has no attribute"),
        ("compare_toy:TOYS", WAY_OUT),
        (":TOY", "The task ':TOY' cannot be imported: Empty module name" + WAY_OUT),
        ("compare_toy:load", "'compare_toy:load' is a function, not a `hf_kakurenbo.compare.Task`: name a `Task`"),
    ],
)
def test_an_unknown_task(name, message):
    with pytest.raises(ValueError, match="ask") as raised:
        find_tasks(["digits", name])
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["", "..", "a/b", "-a", "a b", "a\n", "é"])
def test_a_name_of_a_task_that_cannot_be_a_folder(name):
    with pytest.raises(ValueError, match="cannot name a task: use letters, digits"):
        replace(TOY, name=name)


@pytest.mark.parametrize("missing", ["num_train_epochs", "learning_rate"])
def test_a_task_says_what_methods_multiply(missing):
    arguments = {name: value for name, value in ARGUMENTS.items() if name != missing}
    with pytest.raises(ValueError, match=f"The arguments of the task 'toy' lack {missing}"):
        Task("toy", load, TOY.make_model, arguments)


def test_a_task_has_no_max_steps():
    with pytest.raises(ValueError, match="The task 'toy' has max_steps; give num_train_epochs alone"):
        replace(TOY, arguments={**ARGUMENTS, "max_steps": 10})
