"""How the examples read images: of every mode the right gray values, of every mask its classes."""

import io

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Pillow

# Every gray value from black to white, and more light ones than dark ones; higher than wide.
GRAY = np.sort(np.concatenate([np.arange(256), np.full(144, 230)])).astype(np.uint8).reshape(25, 16)
PALETTE = np.random.default_rng(0).permutation(256)


def reread(image, kind):
    """As from a file."""
    file = io.BytesIO()
    image.save(file, kind)
    return Pillow.open(io.BytesIO(file.getvalue()))


def with_palette(values, colors):
    """An image whose pixel of value v is the entry of that number in a palette."""
    image = Pillow.fromarray(values.astype(np.uint8)).copy()
    image.putpalette([int(part) for color in colors for part in np.broadcast_to(color, 3)])
    return image


def gray_palette():
    place = np.argsort(PALETTE)  # of each gray value in the palette
    return with_palette(place[GRAY], PALETTE)


PICTURES = {
    "L": lambda: reread(Pillow.fromarray(GRAY), "PNG"),
    "P": lambda: reread(gray_palette(), "PNG"),
    "RGB": lambda: reread(Pillow.fromarray(GRAY).convert("RGB"), "PNG"),
    "RGBA": lambda: reread(Pillow.fromarray(GRAY).convert("RGBA"), "PNG"),
    "LA": lambda: reread(Pillow.fromarray(GRAY).convert("LA"), "PNG"),
    "CMYK": lambda: reread(Pillow.fromarray(GRAY).convert("RGB").convert("CMYK"), "TIFF"),
    "I;16": lambda: reread(Pillow.fromarray(GRAY * np.uint16(257)), "PNG"),
    "I;16B": lambda: Pillow.frombytes("I;16B", GRAY.shape[::-1], (GRAY * np.uint16(257)).astype(">u2").tobytes()),
    "I of 8 bits": lambda: reread(Pillow.fromarray(GRAY.astype(np.int32)), "TIFF"),
    "I of 16 bits": lambda: reread(Pillow.fromarray(GRAY * np.int32(257)), "TIFF"),
    "I of 32 bits": lambda: reread(Pillow.fromarray(1_000_000 + GRAY * np.int32(5_000_000)), "TIFF"),
    "I below zero": lambda: reread(Pillow.fromarray(GRAY.astype(np.int32) - 128), "TIFF"),
    "F up to 1": lambda: reread(Pillow.fromarray(GRAY / np.float32(255)), "TIFF"),
    "F up to 255": lambda: reread(Pillow.fromarray(GRAY.astype(np.float32)), "TIFF"),
    "F up to 65535": lambda: reread(Pillow.fromarray(GRAY * np.float32(257)), "TIFF"),
    "F of its own": lambda: reread(Pillow.fromarray(GRAY * np.float32(1e6) - np.float32(3e7)), "TIFF"),
}


@pytest.mark.parametrize("mode", PICTURES)
def test_gray_values_are_those_of_the_picture(example, mode):
    picture = PICTURES[mode]()
    assert picture.mode == mode.split()[0]
    found = example("_images").to_rgb(picture)
    assert (found.mode, found.size) == ("RGB", (16, 25))
    assert np.array_equal(np.asarray(found), np.repeat(GRAY[..., None], 3, axis=2))


def test_a_picture_of_one_bit_is_black_and_white(example):
    found = example("_images").to_rgb(reread(Pillow.fromarray(GRAY > 99), "PNG"))
    assert np.array_equal(np.asarray(found)[..., 0], np.where(GRAY > 99, 255, 0))


@pytest.mark.parametrize("share", [0.25, 0.5])
@pytest.mark.parametrize(("mode", "white"), [("I;16", 65535), ("F up to 1", 1)], ids=str)
def test_a_dark_picture_stays_dark(example, mode, white, share):
    kind = np.uint16 if mode == "I;16" else np.float32
    found = example("_images").to_rgb(Pillow.fromarray((GRAY / 255 * white * share).astype(kind)))
    assert np.asarray(found).mean() == pytest.approx(GRAY.mean() * share, abs=0.5)


def test_what_is_not_finite_is_black_or_white(example):
    values = np.array([[0, 0.5, 1], [np.nan, np.inf, -np.inf]], dtype=np.float32)
    found = np.asarray(example("_images").to_rgb(Pillow.fromarray(values)))[..., 0]
    assert found.tolist() == [[0, 128, 255], [0, 255, 0]]
    assert np.asarray(example("_images").to_rgb(Pillow.fromarray(values[1:]))).max() == 255
    assert np.asarray(example("_images").to_rgb(Pillow.fromarray(np.full((2, 2), -7, np.int32)))).max() == 0


TURNED = {1: 0, 3: 2, 6: 3, 8: 1}  # quarters to the left


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16], ids=["8 bits", "16 bits"])
def test_a_picture_is_upright_as_its_exif_data_say(example, orientation, kind):
    exif, file = Pillow.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Pillow.fromarray(GRAY.astype(kind) * (257 if kind is np.uint16 else 1)).save(file, "PNG", exif=exif)
    found = example("_images").to_rgb(Pillow.open(io.BytesIO(file.getvalue())))
    assert np.array_equal(np.asarray(found)[..., 0], np.rot90(GRAY, TURNED[orientation]))


CLASSES = np.random.default_rng(1).integers(0, 200, (8, 6))
CLASSES[0, 0] = 255
MASKS = {
    "L": lambda: Pillow.fromarray(CLASSES.astype(np.uint8)),
    "P": lambda: with_palette(CLASSES, PALETTE),
    "I;16": lambda: Pillow.fromarray(CLASSES.astype(np.uint16)),
    "I": lambda: Pillow.fromarray(CLASSES.astype(np.int32)),
    "F": lambda: Pillow.fromarray(CLASSES.astype(np.float32)),
    "LA": lambda: Pillow.fromarray(CLASSES.astype(np.uint8)).convert("LA"),
    "RGB": lambda: Pillow.fromarray(CLASSES.astype(np.uint8)).convert("RGB"),
    "RGBA": lambda: Pillow.fromarray(CLASSES.astype(np.uint8)).convert("RGBA"),
}


@pytest.mark.parametrize("mode", MASKS)
def test_the_classes_are_what_the_mask_holds(example, mode):
    mask = reread(MASKS[mode](), "TIFF" if mode in ("I", "F") else "PNG")
    assert mask.mode == mode
    read = example("_images").class_numbers
    assert read(mask).dtype == np.int64
    assert np.array_equal(read(mask), CLASSES)
    assert np.array_equal(read(mask.resize((12, 16), Pillow.Resampling.NEAREST)), CLASSES.repeat(2, 0).repeat(2, 1))
    assert set(read(mask, 30).flatten().tolist()) == set(CLASSES.flatten().tolist())


def test_a_mask_of_one_bit_has_two_classes(example):
    assert np.array_equal(example("_images").class_numbers(reread(Pillow.fromarray(CLASSES > 99), "PNG")), CLASSES > 99)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (lambda: with_palette(CLASSES, np.random.default_rng(0).integers(0, 256, (256, 3))).convert("RGB"), "colours"),
        (lambda: Pillow.fromarray(CLASSES.astype(np.float32) / 2), "fractions"),
    ],
    ids=["colours", "fractions"],
)
def test_a_mask_without_classes_is_refused(example, mask, message):
    with pytest.raises(ValueError, match=f"A mask must have .* for each pixel, its class; this one has {message}"):
        example("_images").class_numbers(mask())


# ---- In the examples ----


def test_the_image_classifier_sees_the_right_gray_values(example, tmp_path):
    for name in ("dark", "light"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Pillow.fromarray(GRAY * np.uint16(257)).save(tmp_path / name / f"{number}.png")
    module = example("image_classification")
    data_args = module.DataTrainingArguments(train_dir=str(tmp_path), train_val_split=0.25)
    data = module.load_images(data_args, seed=0)
    transform = module.ImageFormat(16, [0.0] * 3, [1.0] * 3).transform(augment=False)
    rows = data["train"].with_transform(module.tensors(data_args, transform))
    assert len(rows) == 6
    cropped = GRAY[4:-5] / 255  # the middle of what is 16 wide
    assert torch.stack(rows[:]["pixel_values"]).mean() == pytest.approx(cropped.mean(), abs=0.02)


def test_the_segmentation_sees_the_right_gray_values_and_classes(example):
    module = example("semantic_segmentation")
    features = Features({"image": Image(), "label": Image(), "id": Value("int64")})
    rows = {"image": [PICTURES["I;16"]()], "label": [reread(with_palette(GRAY // 60, PALETTE), "PNG")], "id": [0]}
    data = Dataset.from_dict(rows, features=features)
    data_args = module.DataTrainingArguments()
    assert module.count_classes(DatasetDict(train=data), data_args) == 5
    prepared = module.Preparation(data_args, 16, (0.0,) * 3, (1.0,) * 3).transform(augment=False)(data[:])
    assert prepared["pixel_values"][0].mean() == pytest.approx(GRAY.mean() / 255, abs=0.01)
    assert prepared["labels"][0].unique().tolist() == [0, 1, 2, 3, 4]
