"""Random crops, flips and RandAugment of uint8 tensors: what timm draws, without PIL, on any device.

Crops and RandAugment's operations are drawn by timm itself, for each image anew; only the pixels are made here. A gray
image stays one channel, which is a third of the work. An operation does what Pillow does, but for three things: crops
differ by a level here and there, more where an edge overshoots; the corners that a rotation or a shift uncovers are
filled with one gray; and on a GPU a moved image is resampled by PyTorch's bicubic filter.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numba
import numpy as np
import torch
from timm.data.auto_augment import AugmentOp, rand_augment_transform
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torch.nn import functional

# Of the area and of width by height, as in every published program.
CROP_SCALE, CROP_RATIO = (0.08, 1.0), (3 / 4, 4 / 3)

_LEVELS = torch.arange(256)
# Luma of ITU-R 601, as Pillow converts colours to gray, by 65,536.
_LUMA = torch.tensor([19595, 38470, 7471])


class BatchAugmentation:
    """Crops, flips and RandAugment, for each image drawn anew from the global generators of `random` and NumPy.

    Args:
        size: of the crops, in pixels.
        rand_augment: timm's name of a RandAugment policy, such as "rand-m9-mstd0.5-inc1"; None for none.
        horizontal_flip: probability of mirroring.
        vertical_flip: probability of turning upside down.
        fill: the gray, in 0..255, of what an operation uncovers.

    Raises:
        ValueError: the policy has an operation that is not made here, or is no RandAugment policy.
    """

    def __init__(
        self,
        size: int,
        rand_augment: str | None = None,
        horizontal_flip: float = 0.0,
        vertical_flip: float = 0.0,
        fill: int = 128,
    ) -> None:
        self.size, self.fill = size, fill
        self.flips = {2: horizontal_flip, 1: vertical_flip}
        self.policy = None if rand_augment is None else _recording_policy(rand_augment)

    def __call__(self, images: Sequence[Tensor]) -> Tensor:
        """A batch from images of one size, uint8 (channels, height, width): (B, channels, size, size)."""
        batch = torch.stack([self._flip(self._crop(image)) for image in images])
        if self.policy is not None:
            self._change(batch)
        return batch

    def _crop(self, image: Tensor) -> Tensor:
        top, left, height, width = RandomResizedCropAndInterpolation.get_params(image, CROP_SCALE, CROP_RATIO)
        return resized(image[:, top : top + height, left : left + width], self.size)

    def _flip(self, image: Tensor) -> Tensor:
        axes = [axis for axis, probability in self.flips.items() if random.random() < probability]
        return image.flip(axes) if axes else image

    def _change(self, batch: Tensor) -> None:
        drawn = [self._draw() for _ in range(len(batch))]
        for layer in range(self.policy.num_layers):
            of_layer = [(number, operations[layer]) for number, operations in enumerate(drawn)]
            _tone(batch, [(n, operation) for n, operation in of_layer if operation and operation[0] in _TABLES])
            _move(batch, [(n, operation) for n, operation in of_layer if operation and operation[0] in _MOVES], self)
            for number, operation in of_layer:
                if operation and operation[0] in _FILTERS:
                    batch[number] = _FILTERS[operation[0]](batch[number], *operation[1])

    def _draw(self) -> list[Any]:
        """For each layer the name of an operation and its arguments, or None where timm leaves the image alone."""
        policy = self.policy
        weights = policy.choice_weights
        operations = np.random.choice(policy.ops, policy.num_layers, replace=weights is None, p=weights)
        return [operation(None) for operation in operations]


def resized(image: Tensor, size: int) -> Tensor:
    """An image, uint8 (channels, height, width), made (channels, size, size) with Pillow's bicubic filter."""
    resize = partial(functional.interpolate, size=(size, size), mode="bicubic", antialias=True)
    if image.device.type == "cpu":
        return resize(image[None])[0]
    return resize(image[None].float())[0].round_().clamp_(0, 255).to(torch.uint8)


def _recording_policy(name: str) -> Any:
    """Timm's policy with operations that return what they are and their arguments, instead of an image."""
    if not name.startswith("rand"):
        raise ValueError(f"rand_augment={name!r} is no RandAugment policy of timm; its name begins with 'rand-'.")
    policy = rand_augment_transform(name, {})
    policy.ops = [_recording(operation, name) for operation in policy.ops]
    return policy


def _recording(operation: AugmentOp, policy: str) -> AugmentOp:
    name = operation.aug_fn.__name__
    if name not in _TABLES and name not in _MOVES and name not in _FILTERS:
        raise ValueError(
            f"The operation {operation.name} of rand_augment={policy!r} is made of PIL images alone; give "
            "--augment_with pil."
        )
    recording = copy.copy(operation)
    recording.aug_fn = partial(_record, name)
    return recording


def _record(name: str, image: None, *arguments: Any, **options: Any) -> tuple[str, tuple[Any, ...]]:
    return name, arguments


# ---- Of each level another level ----


def _tone(batch: Tensor, operations: Sequence[tuple[int, Any]]) -> None:
    """Change the levels of some images, each by a table of its own."""
    if not operations:
        return
    numbers = torch.tensor([number for number, _ in operations], device=batch.device)
    chosen = batch[numbers]
    channels = chosen.shape[1]
    tables = [
        _TABLES[name](image, *arguments).to(batch.device).expand(channels, 256)
        for image, (_, (name, arguments)) in zip(chosen, operations, strict=True)
    ]
    flat = chosen.flatten(2).long()
    batch[numbers] = torch.gather(torch.stack(tables).to(torch.uint8), 2, flat).view_as(chosen)


def _blended(level: float, factor: float) -> Tensor:
    """Between one level and the image's own; Pillow rounds down."""
    return (level + factor * (_LEVELS - level)).clamp(0, 255)


def _contrasted(image: Tensor, factor: float) -> Tensor:
    return _blended(math.floor(float(_gray(image).double().mean()) + 0.5), factor)


def _posterized(image: Tensor, bits: int) -> Tensor:
    return _LEVELS if bits >= 8 else _LEVELS & ~(2 ** (8 - bits) - 1)


def _auto_contrasted(image: Tensor) -> Tensor:
    low, high = (values[:, None].double().cpu() for values in torch.aminmax(image.flatten(1), dim=1))
    # Not `255 / (high - low)`, for which PyTorch multiplies by an inverse.
    scale = torch.full_like(low, 255) / (high - low).clamp(min=1)
    stretched = (_LEVELS * scale + -low * scale).clamp(0, 255).floor()
    return torch.where(high > low, stretched, _LEVELS.double())


def _equalized(image: Tensor) -> Tensor:
    return torch.stack([_equalized_channel(channel) for channel in image])


def _equalized_channel(channel: Tensor) -> Tensor:
    counts = torch.bincount(channel.flatten().int(), minlength=256).cpu()
    present = counts[counts > 0]
    step = int(present.sum() - present[-1]) // 255
    if step == 0:
        return _LEVELS
    before = counts.cumsum(0) - counts
    return ((step // 2 + before) // step).clamp(max=255)


def _gray(image: Tensor) -> Tensor:
    """The levels of gray, uint8 (height, width)."""
    if len(image) == 1:
        return image[0]
    weighted = torch.tensordot(_LUMA.to(image.device, torch.float64), image.double(), 1)
    return ((weighted + 0x8000) / 65536).floor().to(torch.uint8)


_TABLES: dict[str, Callable[..., Tensor]] = {
    "auto_contrast": _auto_contrasted,
    "equalize": _equalized,
    "invert": lambda image: 255 - _LEVELS,
    "posterize": _posterized,
    "solarize": lambda image, threshold: torch.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS),
    "solarize_add": lambda image, add: torch.where(_LEVELS < 128, (_LEVELS + add).clamp(max=255), _LEVELS),
    "contrast": _contrasted,
    "brightness": lambda image, factor: _blended(0, factor),
}

# ---- Of each pixel and its neighbours, or its other channels, another pixel ----


def _sharpened(image: Tensor, factor: float) -> Tensor:
    """Between an image that is smoothed, but for its edge, and the image."""
    kernel = torch.ones(1, 1, 3, 3, device=image.device)
    kernel[..., 1, 1] = 5
    smooth = image.float()
    smooth[:, 1:-1, 1:-1] = (functional.conv2d(image[:, None].float(), kernel)[:, 0] / 13 + 0.5).floor()
    return (smooth + factor * (image - smooth)).clamp(0, 255).to(torch.uint8)


def _colored(image: Tensor, factor: float) -> Tensor:
    """Between an image without colours and the image; one that is gray stays as it is."""
    if len(image) == 1:
        return image
    gray = _gray(image).float()
    return (gray + factor * (image - gray)).clamp(0, 255).to(torch.uint8)


_FILTERS: dict[str, Callable[..., Tensor]] = {"sharpness": _sharpened, "color": _colored}

# ---- Pixels elsewhere ----


def _turn(size: int, degrees: float) -> tuple[float, ...]:
    cosine, sine, middle = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), size / 2
    return (cosine, -sine, middle * (1 - cosine + sine), sine, cosine, middle * (1 - cosine - sine))


# From a place in the result to the place in the image that it shows: x' = a·x + b·y + c, y' = d·x + e·y + f.
_MOVES: dict[str, Callable[[int, float], tuple[float, ...]]] = {
    "shear_x": lambda size, factor: (1, factor, 0, 0, 1, 0),
    "shear_y": lambda size, factor: (1, 0, 0, factor, 1, 0),
    "translate_x_rel": lambda size, fraction: (1, 0, fraction * size, 0, 1, 0),
    "translate_y_rel": lambda size, fraction: (1, 0, 0, 0, 1, fraction * size),
    "rotate": _turn,
}


def _move(batch: Tensor, operations: Sequence[tuple[int, Any]], augmentation: BatchAugmentation) -> None:
    """Move the pixels of some images."""
    if not operations:
        return
    numbers = [number for number, _ in operations]
    maps = np.array([_MOVES[name](augmentation.size, *arguments) for _, (name, arguments) in operations])
    on_cpu = batch.device.type == "cpu"
    batch[numbers] = (_moved_on_cpu if on_cpu else moved_by_pytorch)(batch[numbers], maps, augmentation.fill)


def moved_by_pytorch(images: Tensor, maps: np.ndarray, fill: int) -> Tensor:
    """What `_moved_on_cpu` makes, on any device, by the bicubic filter of PyTorch."""
    size = images.shape[-1]
    places = torch.arange(size, device=images.device) + 0.5
    x, y = torch.meshgrid(places, places, indexing="xy")
    a, b, c, d, e, f = torch.tensor(maps, device=images.device, dtype=torch.float32).T[:, :, None, None]
    grid = torch.stack([a * x + b * y + c, d * x + e * y + f], dim=-1)
    inside = ((grid >= 0) & (grid < size)).all(-1)[:, None]
    moved = functional.grid_sample(
        images.float(), grid * (2 / size) - 1, mode="bicubic", padding_mode="border", align_corners=False
    )
    return torch.where(inside, moved.round_().clamp_(0, 255), fill).to(torch.uint8)


def _moved_on_cpu(images: Tensor, maps: np.ndarray, fill: int) -> Tensor:
    """Images (B, channels, size, size) resampled by Pillow's bicubic filter, in a fraction of PyTorch's time."""
    moved = np.empty(images.shape, dtype=np.uint8)
    for source, target, coefficients in zip(images.numpy(), moved, maps, strict=True):
        a, b, c, d, e, f = coefficients
        for channel, into in zip(source, target, strict=True):
            if (a, d, e, f) == (1, 0, 1, 0):  # each row is shifted
                _shift_rows(channel, into, b, c, fill)
            elif (a, b, c, e) == (1, 0, 0, 1):  # each column is
                turned = np.empty_like(into)
                _shift_rows(np.ascontiguousarray(channel.T), turned, d, f, fill)
                into[:] = turned.T
            else:
                _resample(channel, into, coefficients, fill)
    return torch.from_numpy(moved)


@numba.njit(cache=True, nogil=True, inline="always")
def _cubic(before: float, at: float, after: float, next_after: float, fraction: float) -> float:
    # Pillow's filter in `Image.transform`, steeper than that of its `resize`.
    second = 2 * (before - at) + after - next_after
    third = at - before + next_after - after
    return at + fraction * (after - before + fraction * (second + fraction * third))


@numba.njit(cache=True, nogil=True, inline="always")
def _to_byte(value: float) -> int:
    return int(min(max(value + 0.5, 0.0), 255.0))


@numba.njit(cache=True, nogil=True)
def _shift_rows(source: np.ndarray, target: np.ndarray, slope: float, offset: float, fill: int) -> None:
    size = source.shape[0]
    line = np.empty(size + 6, dtype=np.float32)  # a row, and its ends thrice
    for row in range(size):
        shift = slope * (row + 0.5) + offset
        whole = math.floor(shift)
        fraction = np.float32(shift - whole)
        line[:3], line[3 : size + 3], line[size + 3 :] = source[row, 0], source[row], source[row, size - 1]
        # Where 0 <= column + 0.5 + shift < size.
        first = min(max(math.ceil(-0.5 - shift), 0), size)
        end = max(min(math.ceil(size - 0.5 - shift), size), first)
        target[row, :first] = fill
        target[row, end:] = fill
        taps = line[first + whole + 2 : end + whole + 6]
        for place in range(end - first):
            value = _cubic(taps[place], taps[place + 1], taps[place + 2], taps[place + 3], fraction)
            target[row, first + place] = _to_byte(value)


@numba.njit(cache=True, nogil=True)
def _resample(source: np.ndarray, target: np.ndarray, maps: np.ndarray, fill: int) -> None:
    size = source.shape[0]
    framed = np.empty((size + 6, size + 6), dtype=np.float32)  # an image, and its edges thrice
    for row in range(size + 6):
        line = source[min(max(row - 3, 0), size - 1)]
        framed[row, :3], framed[row, 3 : size + 3], framed[row, size + 3 :] = line[0], line, line[size - 1]
    sums = np.empty(4, dtype=np.float32)
    for row in range(size):
        for column in range(size):
            x = maps[0] * (column + 0.5) + maps[1] * (row + 0.5) + maps[2]
            y = maps[3] * (column + 0.5) + maps[4] * (row + 0.5) + maps[5]
            if not (0 <= x < size and 0 <= y < size):
                target[row, column] = fill
                continue
            left, top = int(x + 2.5), int(y + 2.5)  # of four by four pixels of the frame, the second
            across, down = np.float32(x + 2.5 - left), np.float32(y + 2.5 - top)
            for line_number in range(4):
                line = framed[top - 1 + line_number]
                sums[line_number] = _cubic(line[left - 1], line[left], line[left + 1], line[left + 2], across)
            target[row, column] = _to_byte(_cubic(sums[0], sums[1], sums[2], sums[3], down))
