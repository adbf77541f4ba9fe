"""The chaos game played for many images at a time, and its points drawn.

Many points of an image move side by side, each for a few moves, instead of few for many: other orbits of the same
system, with as many points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .drawing import Drawing
from .iterated_functions import (
    INFINITY_EXPONENT,
    LANES,
    MOST_HALVINGS,
    MOVES_BEFORE,
    TABLE_BITS,
    Variation,
    choice_table,
    vary,
)
from .plane import GRAY, SHRINK, Leaf, margin_of, pattern_key
from .points import HUES, PALETTE, pattern_bits
from .random_tensors import keys_tensor, random_bits_tensor
from .space import DISTANCE, FOCAL_LENGTH, NEAREST, WHITE, Cloud, camera_axes

# How many points are held at a time, each in some 60 bytes.
_POINTS_AT_A_TIME = 2**24

# Each point that moves leaves so many places behind, after as many moves that do not count.
_MOVES = 64
# So few moves do not take a point to infinity. Whether more would shows in how far from the origin half of the points
# are in the end, against half way; as many points as this are enough to see it, and growth below the least is chance.
_FEWEST_MOVERS = 256
_LEAST_GROWTH = 1.5


class Orbits(NamedTuple):
    """Points of the attractors of B images in D dimensions."""

    points: Tensor
    """(B, points, D) float64."""
    finite: Tensor
    """(B,) bool: False where points run off to infinity, whatever was tried."""


class System(NamedTuple):
    """Of an image: what is played."""

    maps: NDArray[np.float64]
    """Unvaried, (maps, 6) or (maps, 12)."""
    probabilities: NDArray[np.float64]
    """(maps,)."""
    variation: Variation
    key: np.uint64


def play_batch(systems: Sequence[System], points: int, device: torch.device | str) -> Orbits:
    """Play the chaos game with varied maps for several images; weakens variations as `play_varied` does.

    Args:
        systems: what is played, all in as many dimensions.
        points: how many points each image gets, at least 1.
        device: where to play.
    """
    orbits = _play([vary(system.maps, system.variation) for system in systems], systems, points, device)
    factors = [system.variation.factor for system in systems]
    for attempt in range(MOST_HALVINGS):
        lost = (~orbits.finite).nonzero().flatten().tolist()
        if not lost:
            break
        last = attempt == MOST_HALVINGS - 1
        for number in lost:
            factors[number] = 1.0 if last else (factors[number] + 1.0) / 2.0
        again = [systems[number] for number in lost]
        maps = [
            vary(system.maps, system.variation._replace(factor=factors[number]))
            for number, system in zip(lost, again, strict=True)
        ]
        replayed = _play(maps, again, points, device)
        orbits.points[lost] = replayed.points
        orbits.finite[lost] = replayed.finite
    return orbits


def _play(
    maps: Sequence[NDArray[np.float64]], systems: Sequence[System], points: int, device: torch.device | str
) -> Orbits:
    images, coefficients = len(maps), maps[0].shape[1]
    dimensions = 2 if coefficients == 6 else 3
    movers = max(-(-points // _MOVES), _FEWEST_MOVERS)
    tables = torch.from_numpy(np.stack([choice_table(system.probabilities) for system in systems])).to(device)
    most = max(map(len, maps))
    padded = np.zeros((images, most, coefficients))
    for number, of_image in enumerate(maps):
        padded[number, : len(of_image)] = of_image
    matrices, shifts = _split(torch.from_numpy(padded).to(device), dimensions)
    keys = keys_tensor([int(system.key) for system in systems], device).view(images, 1)
    first_map = torch.arange(images, device=device).view(images, 1) * most
    mover = torch.arange(movers, device=device)
    places = torch.zeros(images, movers, dimensions, dtype=torch.float64, device=device)
    kept = torch.empty(_MOVES, images, movers, dimensions, dtype=torch.float64, device=device)
    for move in range(-MOVES_BEFORE, _MOVES):
        bits = random_bits_tensor(keys, (move + MOVES_BEFORE) * movers + mover)
        chosen = first_map + tables.gather(1, bits & (2**TABLE_BITS - 1)).long()
        places = (matrices[chosen] @ places.unsqueeze(-1)).squeeze(-1) + shifts[chosen]
        if move >= 0:
            kept[move] = places
    # One move of all, then the next: neighbours in the order are then as unlike as on the CPU.
    found = kept.permute(1, 0, 2, 3).reshape(images, movers * _MOVES, dimensions)[:, :points]
    half_way, end = (kept[move].norm(dim=2).median(dim=1).values for move in (0, -1))
    # What grows by more leaves float64's range (see `play`) in the moves that the CPU makes for as many points.
    most = max(2.0 ** min(INFINITY_EXPONENT * _MOVES * LANES / points, 1000.0), _LEAST_GROWTH)
    return Orbits(found, found.isfinite().flatten(1).all(1) & (end <= most * half_way))


def _split(coefficients: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    """Matrices (all maps, D, D) and shifts (all maps, D) of (images, maps, coefficients)."""
    flat = coefficients.flatten(0, 1)
    square = dimensions * dimensions
    return flat[:, :square].reshape(-1, dimensions, dimensions), flat[:, square:].contiguous()


def last_points(places: Tensor, visible: Tensor, image_size: int) -> Tensor:
    """For each pixel the number, from 1, of the last point on it, or 0: int32, (images, size + 2, size + 2).

    Args:
        places: columns and rows of the points in the image, int64, (images, points, 2).
        visible: which points are in the image, (images, points).
        image_size: the canvas has a pixel more on each side.
    """
    images, points = visible.shape
    width = image_size + 2
    canvas = torch.zeros(images, width * width, dtype=torch.int32, device=places.device)
    numbers = torch.arange(1, points + 1, dtype=torch.int32, device=places.device).expand(images, points)
    flat = torch.where(visible, (places[..., 1] + 1) * width + places[..., 0] + 1, 0)
    canvas.scatter_reduce_(1, flat, torch.where(visible, numbers, 0), "amax")
    return canvas.view(images, width, width)


def see_patches(canvas: Tensor, keys: Tensor, bits: Tensor) -> Tensor:
    """What is seen of patches with a pattern of each point's own: as `points.cover_with_patches`, without the margin.

    Args:
        canvas: what `last_points` returned.
        keys: of the patterns, int64, (images,).
        bits: `points.pattern_bits` of each image, int64, (images, 9).
    """
    size = canvas.shape[1] - 2
    windows = [canvas[:, row : row + size, column : column + size] for row in range(3) for column in range(3)]
    last, place = torch.stack(windows).max(dim=0)
    bit = bits.gather(1, place.flatten(1)).view_as(place)
    lit = random_bits_tensor(keys.view(-1, 1, 1), last.long()) >> bit & 1
    return torch.where(lit.bool(), last, 0)


def develop_batch(seen: Tensor, finite: Tensor, color: bool, gray: int) -> Tensor:
    """The images, black without points: uint8, (images, 1 or 3, size, size).

    Args:
        seen: for each pixel the number of the point that is seen there, or 0; int32, (images, size, size).
        finite: of which images the points count.
        color: in colour point n has hue n / 128 of the circle.
        gray: how bright points are when gray.
    """
    lit = (seen > 0) & finite.view(-1, 1, 1)
    if not color:
        return (lit * gray).to(torch.uint8).unsqueeze(1)
    palette = torch.from_numpy(PALETTE.copy()).to(seen.device)
    return (palette[(seen & (HUES - 1)).long()] * lit.unsqueeze(-1)).permute(0, 3, 1, 2).contiguous()


def draw_leaves(
    instances: Sequence[Leaf], drawing: Drawing, points: int, keys: Sequence[np.uint64], device: torch.device | str
) -> Tensor:
    """What `FractalDB.render` draws, with other orbits: uint8, (images, 1 or 3, size, size).

    Args:
        instances: the drawings.
        drawing: how they are drawn.
        points: how many points each image gets.
        keys: of their orbits.
        device: where to draw.
    """
    return torch.cat([_draw_leaves(*part, drawing, points, device) for part in _chunks(instances, keys, points)])


def _draw_leaves(
    instances: Sequence[Leaf], keys: Sequence[np.uint64], drawing: Drawing, points: int, device: torch.device | str
) -> Tensor:
    size, margin = drawing.image_size, margin_of(drawing.image_size)
    orbits = play_batch([System(*leaf[:3], key) for leaf, key in zip(instances, keys, strict=True)], points, device)
    low, high = orbits.points.amin(1, keepdim=True), orbits.points.amax(1, keepdim=True)
    scale = torch.where(high > low, (size - 2 * margin) * SHRINK / (high - low), 0.0)
    places = ((orbits.points - low) * scale + margin).nan_to_num(-1.0).long()
    # The second coordinate points upwards.
    backwards = torch.tensor([[[leaf.flip_columns, not leaf.flip_rows]] for leaf in instances], device=device)
    places = torch.where(backwards, size - 1 - places, places)
    visible = ((places >= 0) & (places < size)).all(2)
    canvas = last_points(places, visible, size)
    if drawing.patches:
        bits = torch.tensor([pattern_bits(leaf.flip_columns, leaf.flip_rows) for leaf in instances], device=device)
        seen = see_patches(canvas, keys_tensor([int(pattern_key(key)) for key in keys], device), bits)
    else:
        seen = canvas[:, 1:-1, 1:-1]
    return develop_batch(seen, orbits.finite, drawing.color, GRAY)


def draw_clouds(
    instances: Sequence[Cloud], drawing: Drawing, points: int, keys: Sequence[np.uint64], device: torch.device | str
) -> Tensor:
    """What `ExFractalDB.render` draws, with other orbits; arguments and result as of `draw_leaves`."""
    return torch.cat([_draw_clouds(*part, drawing, points, device) for part in _chunks(instances, keys, points)])


def _draw_clouds(
    instances: Sequence[Cloud], keys: Sequence[np.uint64], drawing: Drawing, points: int, device: torch.device | str
) -> Tensor:
    half = 0.5 * drawing.image_size
    orbits = play_batch([System(*cloud[:3], key) for cloud, key in zip(instances, keys, strict=True)], points, device)
    extent = orbits.points.amax((1, 2)) - orbits.points.amin((1, 2))
    scale = torch.where(extent > 0, 2.0 / extent, 0.0).view(-1, 1, 1)
    axes = torch.from_numpy(np.stack([camera_axes(cloud.view) for cloud in instances])).to(device)
    seen_from = (orbits.points - orbits.points.mean(1, keepdim=True)) @ (axes * scale).transpose(1, 2)
    depth = DISTANCE - seen_from[..., 2]
    per_depth = FOCAL_LENGTH * half / depth.clamp(min=NEAREST)
    column, row = half + seen_from[..., 0] * per_depth, half - seen_from[..., 1] * per_depth
    # Before they are cut to integers, which would bring what is just outside into the first pixel.
    visible = (column >= 0) & (column < 2 * half) & (row >= 0) & (row < 2 * half) & (depth >= NEAREST)
    places = torch.stack([column, row], dim=2).nan_to_num(-1.0).clamp(-1, 2 * half).long()
    seen = last_points(places, visible, drawing.image_size)[:, 1:-1, 1:-1]
    return develop_batch(seen, orbits.finite, drawing.color, WHITE)


def _chunks(
    instances: Sequence[Any], keys: Sequence[np.uint64], points: int
) -> Iterator[tuple[Sequence[Any], Sequence[np.uint64]]]:
    images = max(_POINTS_AT_A_TIME // points, 1)
    for start in range(0, len(instances), images):
        yield instances[start : start + images], keys[start : start + images]
