"""Augmentation without PIL: each operation against Pillow's, and the draws against timm's."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import auto_augment, create_transform
from torchvision.transforms import v2

from hf_kakurenbo import load_fdsl
from standin_device import DEVICE, StandIn

SIZE = 64
POLICY = "rand-m9-mstd0.5-inc1"
# How far timm lets each operation go.
TONES = {
    "auto_contrast": [()],
    "equalize": [()],
    "invert": [()],
    "posterize": [(1,), (3,), (8,)],
    "solarize": [(0,), (26,), (256,)],
    "solarize_add": [(0,), (99,)],
    "contrast": [(0.1,), (1.0,), (1.86,)],
    "brightness": [(0.1,), (1.0,), (1.86,)],
    "color": [(0.1,), (1.86,)],
    "sharpness": [(0.1,), (1.0,), (1.86,)],
}
MOVES = {
    "shear_x": (0.27, -0.3),
    "shear_y": (0.27, -0.3),
    "translate_x_rel": (0.405, -0.21),
    "translate_y_rel": (0.405, -0.21),
    "rotate": (27.0, -13.5),
}


pytestmark = pytest.mark.usefixtures("examples_on_the_path")


@pytest.fixture
def augmentation(example):
    return example("_batch_augmentation")


def photo(channels, seed=0):
    """An image with all levels, edges and smooth places."""
    noise = torch.rand(1, channels, 9, 9, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(noise, size=(SIZE, SIZE), mode="bicubic")[0]
    smooth[:, 20:30, 10:50] = 1
    return (smooth.clamp(0, 1) * 255).to(torch.uint8)


def to_pil(image):
    return Image.fromarray(image[0].numpy()) if len(image) == 1 else Image.fromarray(image.permute(1, 2, 0).numpy())


def from_pil(image):
    return v2.functional.pil_to_tensor(image)


def changed(augmentation, image, name, arguments):
    """An image with one operation applied."""
    batch = torch.stack([photo(len(image), 1), image])
    if name in augmentation._TABLES:
        augmentation._tone(batch, [(1, (name, arguments))])
        return batch
    if name in augmentation._MOVES:
        augmentation._move(batch, [(1, (name, arguments))], augmentation.BatchAugmentation(SIZE, fill=100))
        return batch
    return torch.stack([batch[0], augmentation._FILTERS[name](image, *arguments)])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", TONES)
def test_levels_are_those_of_pillow(augmentation, name, channels):
    image = photo(channels)
    for arguments in TONES[name]:
        wanted = getattr(auto_augment, name)(to_pil(image), *arguments)
        untouched, found = changed(augmentation, image, name, arguments)
        assert torch.equal(found, from_pil(wanted)), arguments
        assert torch.equal(untouched, photo(channels, 1))


def test_no_bits_leave_black(augmentation):
    """Pillow 13 refuses it, and timm draws it for one image in some hundreds."""
    _, found = changed(augmentation, photo(1), "posterize", (0,))
    assert found.max() == 0


@given(low=st.integers(0, 255), high=st.integers(0, 255), seed=st.integers(0, 2**31))
def test_tables_of_images_with_few_levels_are_those_of_pillow(low, high, seed):
    import _batch_augmentation as augmentation

    image = torch.from_numpy(
        np.random.default_rng(seed).integers(min(low, high), max(low, high) + 1, (1, 24, 24), "u1")
    )
    for name in ("auto_contrast", "equalize", "contrast"):
        arguments = (1.5,) if name == "contrast" else ()
        batch = image[None].clone()
        augmentation._tone(batch, [(0, (name, arguments))])
        assert torch.equal(batch[0], from_pil(getattr(auto_augment, name)(to_pil(image), *arguments)))


@pytest.mark.parametrize("name", MOVES)
def test_pixels_are_moved_as_by_pillow(augmentation, name):
    image = photo(1)
    for amount in MOVES[name]:
        options = {"resample": Image.Resampling.BICUBIC, "fillcolor": 100}
        wanted = from_pil(getattr(auto_augment, name)(to_pil(image), amount, **options)).int()
        untouched, found = changed(augmentation, image, name, (amount,))
        assert (found.int() - wanted).abs().max() <= 1, amount
        assert torch.equal(untouched, photo(1, 1))
        maps = np.array([augmentation._MOVES[name](SIZE, amount)])
        by_pytorch = augmentation.moved_by_pytorch(image[None], maps, 100)[0].int()
        assert (by_pytorch - wanted).abs().float().mean() < 1.5, amount


def test_crops_are_resized_as_by_pillow(augmentation):
    image = photo(1)[:, 3:60, 5:41]
    wanted = from_pil(to_pil(image).resize((48, 48), Image.Resampling.BICUBIC)).int()
    difference = (augmentation.resized(image, 48).int() - wanted).abs()
    assert difference.max() <= 8  # where edges overshoot
    assert difference.float().mean() < 0.25


def test_what_is_drawn_is_what_timm_draws(augmentation):
    """From the same states of the generators, the same crops, operations and strengths: the same images."""
    images = [photo(1, seed) for seed in range(40)]
    timm = create_transform(
        (3, 32, 32),
        is_training=True,
        auto_augment=POLICY,
        hflip=0.5,
        vflip=0.5,
        color_jitter=None,
        interpolation="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        use_prefetcher=True,
    )
    ours = augmentation.BatchAugmentation(32, POLICY, 0.5, 0.5)
    same = 0
    for seed, image in enumerate(images):
        wanted, found = [], []
        # timm takes flips from torch's generator: they are left to the next test.
        timm.transforms = [step for step in timm.transforms if "Flip" not in type(step).__name__]
        ours.flips = {}
        for into, make in ((wanted, lambda i: timm(to_pil(i).convert("RGB"))[:1]), (found, lambda i: ours([i])[0])):
            random.seed(seed)
            np.random.seed(seed)
            into.append(make(image).int())
        same += int((wanted[0] - found[0]).abs().float().mean() < 2)
    assert same == len(images)


def test_each_image_has_draws_of_its_own_in_the_distribution_of_timm(augmentation):
    random.seed(0)
    np.random.seed(0)
    operations, crops = [], []
    ours = augmentation.BatchAugmentation(8, POLICY, horizontal_flip=0.3)
    get_params = augmentation.RandomResizedCropAndInterpolation.get_params
    column = torch.arange(16, dtype=torch.uint8).repeat(16, 1)[None] * 10
    for _ in range(300):
        crops.append(get_params(column, augmentation.CROP_SCALE, augmentation.CROP_RATIO))
        operations.extend(ours._draw())
    applied = [operation for operation in operations if operation]
    assert len(applied) / len(operations) == pytest.approx(0.5, abs=0.06)
    names = {name for name, _ in applied}
    assert names == set(augmentation._TABLES) | set(augmentation._MOVES) | set(augmentation._FILTERS)
    assert len(set(crops)) > 50
    ours.policy = None
    batch = ours([column] * 2000)
    mirrored = (batch[:, 0, 0, 0] > batch[:, 0, 0, -1]).float().mean()
    assert mirrored == pytest.approx(0.3, abs=0.04)
    assert len({image.numpy().tobytes() for image in batch}) > 100


@pytest.mark.wide
def test_crops_flips_and_levels_have_the_statistics_of_timm(augmentation, example):
    """Of whole batches: the histograms of levels, the means and the deviations of images, by both ways."""
    images = load_fdsl("fractaldb-test", image_size=96, draw_size=96, mode="L", as_tensor=True, points=3000)
    sources = [images[number]["image"] for number in range(len(images))] * 40
    arguments = example("_augmentation").AugmentationArguments(
        augment=True, rand_augment=POLICY, horizontal_flip=0.5, pixel_mean=[0.5], pixel_std=[0.5]
    )
    timm = example("_augmentation")._timm_transform(arguments, 48)
    for seed in range(2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        ours = augmentation.BatchAugmentation(48, POLICY, 0.5)(sources).double()
        theirs = torch.stack([timm(to_pil(image).convert("RGB"))[:1] for image in sources]).double()
        for statistic in (lambda batch: batch.mean((1, 2, 3)), lambda batch: batch.std((1, 2, 3))):
            one, other = statistic(ours), statistic(theirs)
            error = (one.var() / len(one) + other.var() / len(other)) ** 0.5
            assert abs(one.mean() - other.mean()) < 4 * error
        histograms = [torch.histc(batch, 16, 0, 256) / batch.numel() for batch in (ours, theirs)]
        assert (histograms[0] - histograms[1]).abs().sum() < 0.06


def test_what_cannot_be_made_without_pil_is_refused(augmentation):
    with pytest.raises(ValueError, match=r"The operation Desaturate of .* is made of PIL images alone"):
        augmentation.BatchAugmentation(8, "rand-m9-t3a")
    with pytest.raises(ValueError, match="is no RandAugment policy of timm"):
        augmentation.BatchAugmentation(8, "original")


@pytest.mark.parametrize("channels", [1, 3])
def test_another_device_draws_and_makes_the_same(example, channels):
    """Nothing mixes devices, and what is on the device stays there; a moved image is resampled by PyTorch's filter."""
    augmenting = example("_augmentation")
    arguments = augmenting.AugmentationArguments(augment=True, mixup=0.8, cutmix=1.0, horizontal_flip=0.5)
    images = [photo(channels, seed) for seed in range(24)]
    made = []
    with StandIn():
        for device in ("cpu", DEVICE):
            random.seed(3)
            np.random.seed(3)
            examples = [{"image": image.to(device), "label": number % 3} for number, image in enumerate(images)]
            batch = augmenting.ByteCollator(arguments, 32, training=True)(examples)
            assert {value.device.type for value in batch.values()} == {torch.device(device).type}
            made.append(batch["pixel_values"].cpu().int())
            finished = augmenting.FinishedBatches(arguments, num_classes=3, label_smoothing=0.1)(batch)
            assert {value.device.type for value in finished.values()} == {torch.device(device).type}
            assert finished["pixel_values"].shape == (24, 3, 32, 32)
    different = (made[0] - made[1]).abs().float().flatten(1).mean(1)
    assert different.median() < 0.5
    assert different.max() < 4
