"""Fashion-MNIST as a task: the four files, wherever they are, and the augmentation of each image on its own."""

import gzip
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import set_seed

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer
from hf_kakurenbo.compare import TASKS, Splits
from hf_kakurenbo.compare.quiet import QUIET
from hf_kakurenbo.compare.tasks.fashion_mnist import FOLDER_VARIABLE, AugmentedImages, fashion_mnist
from hf_kakurenbo.compare.tasks.models import full_resolution_resnet
from toy import same_tensors

SIZE = 28
COUNTS = {"train": 60, "t10k": 20}
NAMES = {(prefix, kind): f"{prefix}-{kind}-ubyte" for prefix in COUNTS for kind in ("images-idx3", "labels-idx1")}


def idx(array: np.ndarray) -> bytes:
    """An array of bytes as the format's page says: 0, 0, 8, the dimensions, each size in four bytes, the values."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    found = {}
    for (prefix, kind), name in NAMES.items():
        shape = (COUNTS[prefix], SIZE, SIZE) if kind == "images-idx3" else (COUNTS[prefix],)
        found[name] = random.integers(0, 256 if len(shape) == 3 else 10, shape).astype(np.uint8)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, array in arrays().items():
        (tmp_path / name).write_bytes(idx(array))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


def load(count: int | None = None) -> Splits:
    """Read the files whatever an earlier load left in memory."""
    return fashion_mnist.__wrapped__(count)


# ---- The files ----


def test_images_and_labels_are_those_of_the_files(folder):
    splits, written = load(), arrays()
    pixels = written["train-images-idx3-ubyte"].astype(np.float64)
    for split, prefix in ((splits.train, "train"), (splits.validation, "t10k")):
        columns = split.columns
        assert columns["labels"].tolist() == written[f"{prefix}-labels-idx1-ubyte"].tolist()
        expected = (written[f"{prefix}-images-idx3-ubyte"] - pixels.mean()) / pixels.std()
        assert columns["pixel_values"].shape == (COUNTS[prefix], 1, SIZE, SIZE)
        np.testing.assert_allclose(columns["pixel_values"].squeeze(1), expected, atol=1e-5)


def test_gzipped_files_are_the_same(folder):
    plain = load()
    for name in NAMES.values():
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    zipped = load()
    assert same_tensors(plain.train.columns, zipped.train.columns)
    assert same_tensors(plain.validation.columns, zipped.validation.columns)


def test_a_part_of_the_training_images_is_always_the_same_part(folder):
    part = load(25)
    assert len(part.train) == 25
    assert len(part.validation) == 20
    chosen = [index_of(image, arrays()["train-images-idx3-ubyte"]) for image in part.train.columns["pixel_values"]]
    assert len(set(chosen)) == 25
    assert sorted(chosen) != chosen, "drawn, not the first ones"
    assert part.train.columns["labels"].tolist() == arrays()["train-labels-idx1-ubyte"][chosen].tolist()
    assert same_tensors(part.train.columns, load(25).train.columns)


def index_of(image: torch.Tensor, written: np.ndarray) -> int:
    """Of the image that this one is but for brightness and contrast."""
    correlations = [np.corrcoef(image.flatten(), other.flatten())[0, 1] for other in written]
    [found] = np.flatnonzero(np.array(correlations) > 0.999)
    return int(found)


def test_a_missing_file(folder):
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(RuntimeError) as raised:
        load()
    assert str(raised.value).startswith(f"{folder} has neither t10k-labels-idx1-ubyte nor t10k-labels-idx1-ubyte.gz.")
    assert "apt-get install dataset-fashion-mnist" in str(raised.value)
    assert FOLDER_VARIABLE in str(raised.value)


def test_a_folder_that_is_not_there(folder, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder / "elsewhere"))
    with pytest.raises(RuntimeError, match="elsewhere has neither train-images-idx3-ubyte nor"):
        load()


def test_nowhere_at_all(monkeypatch, tmp_path):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr("hf_kakurenbo.compare.tasks.fashion_mnist._FOLDER", tmp_path / "none")

    def unreachable(*args: object, **options: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(RuntimeError, match=r"nor can the hub be reached \(no network\).*apt-get install"):
        load()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "head": lambda content: content[:6],
    "cut": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "of floats": lambda content: b"\0\0\x0d" + content[3:],
    "another format": lambda content: b"<!doctype html>" + content,
}


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_file(folder, name, damage, zipped):
    file = folder / name
    content = DAMAGES[damage](file.read_bytes())
    if zipped:
        file.unlink()
        file, content = folder / f"{name}.gz", gzip.compress(content)
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged, or no idx file of bytes") as raised:
        load()
    assert str(raised.value).startswith(str(file))
    assert "apt-get install" in str(raised.value)


@pytest.mark.parametrize("at", [0, 4, 200, -6, -1])
def test_a_damaged_archive(folder, at):
    """A bit of the head, of the data, of the checksum or of the length."""
    file = folder / "train-images-idx3-ubyte"
    content = bytearray(gzip.compress(file.read_bytes()))
    content[at] ^= 0xFF
    file.unlink()
    (folder / f"{file.name}.gz").write_bytes(content if at != 4 else content[: len(content) // 2])
    with pytest.raises(ValueError, match="is damaged, or no idx file of bytes"):
        load()


def test_labels_of_other_images(folder):
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(59, np.uint8)))
    with pytest.raises(ValueError, match=r"has \(60, 28, 28\) images and \(59,\) labels to train on"):
        load()


# ---- The augmentation ----

VARIANTS = {(down, right, mirrored) for down in range(5) for right in range(5) for mirrored in (False, True)}


def one_image() -> torch.Tensor:
    return torch.rand(1, 9, 7, generator=torch.Generator().manual_seed(3)) + 1


def variant(image: torch.Tensor, down: int, right: int, mirrored: bool) -> bytes:
    """A window of the image with two pixels of its darkest value around it, mirrored before it is moved."""
    # Written by hand with a padding and a slice, where the dataset gathers a whole batch by index.
    padded = functional.pad(image.flip(-1) if mirrored else image, (2, 2, 2, 2), value=float(image.min()))
    return padded[:, down : down + image.shape[1], right : right + image.shape[2]].contiguous().numpy().tobytes()


def test_every_shift_and_mirror_comes_equally_often():
    image, count = one_image(), 20_000
    dataset = AugmentedImages(image.expand(count, 1, 9, 7), torch.zeros(count, dtype=torch.long))
    set_seed(0)
    found = Counter(
        example["pixel_values"].numpy().tobytes()
        for start in range(0, count, 500)
        for example in dataset.__getitems__(range(start, start + 500))
    )
    expected = {variant(image, *which) for which in VARIANTS}
    # A mirrored image that is shifted by r is a shifted one, mirrored, by 4 − r: the same 50 windows.
    assert len(expected) == 50
    assert found.keys() == expected
    mean = count / 50
    chi_square = sum((times - mean) ** 2 / mean for times in found.values())
    assert chi_square < 49 + 4 * math.sqrt(2 * 49)


def test_images_of_a_batch_are_augmented_each_on_its_own():
    dataset = AugmentedImages(one_image().expand(64, 1, 9, 7), torch.arange(64))
    set_seed(0)
    batch = dataset.__getitems__(range(64))
    assert len({example["pixel_values"].numpy().tobytes() for example in batch}) > 25


def test_an_image_keeps_its_label_and_place():
    images = torch.arange(1.0, 11.0).reshape(10, 1, 1, 1).expand(10, 1, 9, 7).contiguous()
    images[0, 0, 0, 0] = 0  # the border
    dataset = AugmentedImages(images, torch.arange(10) * 3)
    for order in ([4, 4, 0, 9], torch.tensor([7, 2])):
        for index, example in zip(order, dataset.__getitems__(order), strict=True):
            assert example["labels"] == 3 * index
            assert example["pixel_values"][0, 4, 3] == index + 1
            assert example["pixel_values"].shape == (1, 9, 7)
    assert dataset[5]["pixel_values"][0, 4, 3] == 6
    assert len(dataset) == 10


def test_draws_follow_from_the_seed():
    dataset = AugmentedImages(torch.rand(32, 1, 9, 7), torch.arange(32))
    drawn = []
    for seed in (1, 1, 2):
        set_seed(seed)
        drawn.append(torch.stack([example["pixel_values"] for example in dataset.__getitems__(range(32))]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


# ---- Trainings ----


def train(folder: Path, splits: Splits, resume: str | None = None, **options: object) -> KakurenboTrainer:
    arguments = {**QUIET, "save_strategy": "epoch", "num_train_epochs": 4, "per_device_train_batch_size": 8}
    set_seed(5)
    trainer = KakurenboTrainer(
        model=full_resolution_resnet(10, (8, 8, 8)),
        args=KakurenboConfig(str(folder), use_cpu=True, confidence_threshold=0.0, **{**arguments, **options}),
        train_dataset=splits.train,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("policy", ["none", "kakurenbo", "spaced_repetition"])
def test_a_resumed_training_sees_the_images_that_an_uninterrupted_one_sees(folder, tmp_path, policy):
    splits = load()
    whole = train(tmp_path / "whole", splits, hiding_policy=policy)
    steps = sorted(int(path.name.split("-")[1]) for path in (tmp_path / "whole").glob("checkpoint-*"))
    resumed = train(
        tmp_path / "resumed", splits, str(tmp_path / "whole" / f"checkpoint-{steps[1]}"), hiding_policy=policy
    )
    assert resumed.state.global_step == whole.state.global_step
    assert same_tensors(whole.model.state_dict(), resumed.model.state_dict())
    if policy != "none":
        assert whole.ledger.times_hidden.sum() > 0


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("fashion-mnist-10k", (70_000, 100_000)),
        ("fashion-mnist", (70_000, 100_000)),
        ("fashion-mnist-wide", (300_000, 500_000)),
        ("fashion-mnist-vit", (200_000, 500_000)),
    ],
)
def test_the_networks(name, parameters):
    set_seed(0)
    model = TASKS[name].make_model().eval()
    low, high = parameters
    assert low <= sum(parameter.numel() for parameter in model.parameters()) <= high
    assert model(pixel_values=torch.zeros(2, 1, SIZE, SIZE), labels=torch.tensor([0, 9])).logits.shape == (2, 10)


def test_a_convolutional_network_keeps_a_quarter_of_the_places_at_first():
    model = TASKS["fashion-mnist"].make_model()
    assert model.resnet.embedder(torch.zeros(1, 1, SIZE, SIZE)).shape == (1, 16, 14, 14)
