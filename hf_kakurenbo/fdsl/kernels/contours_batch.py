"""Contours drawn many images at a time: the lines of all are cut into pixels at once, the last line of each wins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .contours import (
    FARTHEST,
    INK_COUNTER,
    NOISE_CELLS,
    NOISE_COUNTER,
    NOISE_HEIGHT,
    NOISE_SLOPES,
    REFERENCE_SIZE,
    SLOPE_BITS,
    Contours,
    first_polygon,
    line_shades,
    outward_moves,
    turn,
)
from .drawing import Drawing
from .random_numbers import random_bits
from .random_tensors import keys_tensor, random_bits_tensor

# How many corners, padding included, are worked on at a time; some 30 tensors of 8 bytes each are held of them.
_CORNERS_AT_A_TIME = 2**22


def draw_contours_batch(
    instances: Sequence[Contours],
    drawing: Drawing,
    keys: Sequence[np.uint64],
    background: int,
    device: torch.device | str,
) -> Tensor:
    """What `ContourFamily.render` draws, for several images.

    Args:
        instances: the drawings.
        drawing: how they are drawn.
        keys: their instances' keys.
        background: the gray under the lines, in 0..255.
        device: where to draw.

    Returns:
        uint8, (images, 1 or 3, size, size) on the device.
    """
    parts, first = [], 0
    while first < len(instances):
        last = _end_of_chunk(instances, first)
        parts.append(_draw_chunk(instances[first:last], drawing, keys[first:last], background, device))
        first = last
    return torch.cat(parts)


def _end_of_chunk(instances: Sequence[Contours], first: int) -> int:
    lines = vertices = 0
    for last in range(first, len(instances)):
        lines, vertices = max(lines, instances[last].lines), max(vertices, instances[last].vertices)
        if last > first and (last - first + 1) * lines * vertices > _CORNERS_AT_A_TIME:
            return last
    return len(instances)


def _draw_chunk(
    instances: Sequence[Contours],
    drawing: Drawing,
    keys: Sequence[np.uint64],
    background: int,
    device: torch.device | str,
) -> Tensor:
    size, lines = drawing.image_size, max(instance.lines for instance in instances)
    columns, rows, present = _corners(instances, keys, size / REFERENCE_SIZE, device)
    pixels, of_line = _pixels(columns, rows, present, size, [instance.vertices for instance in instances])
    # Every line has one ink, so the ink of a pixel is that of the last line on it; 0 is the background.
    last_line = torch.zeros(len(instances) * size * size, dtype=torch.int64, device=device)
    last_line.scatter_reduce_(0, pixels, of_line + 1, "amax")
    inks = np.full((len(instances), lines + 1, 3 if drawing.color else 1), background, dtype=np.uint8)
    for number, (instance, key) in enumerate(zip(instances, keys, strict=True)):
        shades = line_shades(instance.lines, np.uint64(random_bits(key, INK_COUNTER)))
        inks[number, 1 : instance.lines + 1] = shades[:, : inks.shape[2]]
    last_line += torch.arange(len(instances), device=device).repeat_interleave(size * size) * (lines + 1)
    drawn = torch.from_numpy(inks).to(device).flatten(0, 1)[last_line]
    return drawn.view(len(instances), size, size, -1).permute(0, 3, 1, 2).contiguous()


def _corners(
    instances: Sequence[Contours], keys: Sequence[np.uint64], scale: float, device: torch.device | str
) -> tuple[Tensor, Tensor, Tensor]:
    """Columns and rows of the corners in pixels, int64, and which are present: each (images, lines, vertices)."""
    images, vertices = len(instances), max(instance.vertices for instance in instances)
    lines = max(instance.lines for instance in instances)
    # Of every vertex: where it starts, its direction, how far a line moves it outwards. Columns, then rows.
    start, direction = np.zeros((2, images, 1, vertices)), np.zeros((2, images, 1, vertices))
    outward = np.zeros((images, 1, vertices))
    for number, instance in enumerate(instances):
        start[:, number, 0, : instance.vertices] = first_polygon(instance)
        direction[:, number, 0, : instance.vertices] = turn(instance.vertices, 1)[::-1]
        outward[number, 0, : instance.vertices] = outward_moves(instance)

    def by_image(values: Sequence[float], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device).view(images, 1, 1)

    line, vertex = torch.arange(lines, device=device).view(-1, 1), torch.arange(vertices, device=device)
    count = by_image([instance.vertices for instance in instances], torch.int64)
    present = (line < by_image([instance.lines for instance in instances], torch.int64)) & (vertex < count)
    noise_keys = keys_tensor([random_bits(key, NOISE_COUNTER) for key in keys], device).view(images, 1, 1)
    bits = random_bits_tensor(noise_keys, line * count + vertex)
    gain = by_image([instance.noise_gain for instance in instances], torch.float64)
    away = torch.from_numpy(outward).to(device)
    found = []
    for axis, shift in ((0, 32), (1, 0)):
        moves = torch.from_numpy(direction[axis]).to(device) * (
            away - gain * _perlin_noise((bits >> shift) & 0xFFFFFFFF)
        )
        positions = torch.from_numpy(start[axis]).to(device) + moves.cumsum(1)
        found.append((positions * scale).clamp(-FARTHEST, FARTHEST).long())
    return found[0], found[1], present


def _perlin_noise(bits: Tensor) -> Tensor:
    slopes = torch.from_numpy(NOISE_SLOPES).to(bits.device)
    position = bits * NOISE_CELLS
    cell = (position >> 32) & 255
    here = (position & 0xFFFFFFFF).double() * 2.0**-32
    fade = here * here * here * (here * (here * 6.0 - 15.0) + 10.0)
    left = slopes[cell] * here
    right = slopes[cell + 1] * (here - 1.0)
    return (left + fade * (right - left)) * NOISE_HEIGHT


def _pixels(
    columns: Tensor, rows: Tensor, present: Tensor, size: int, vertices: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The pixels under all lines, as places in the images laid end to end, and of which line each is; both int64."""
    previous = torch.arange(-1, columns.shape[2] - 1, device=columns.device).repeat(len(vertices), 1)
    previous[:, 0] = torch.tensor(vertices, device=columns.device) - 1
    previous = previous.unsqueeze(1).expand_as(columns)
    x0, y0 = columns.gather(2, previous), rows.gather(2, previous)
    outside = (torch.maximum(x0, columns) < 0) | (torch.minimum(x0, columns) >= size)
    outside |= (torch.maximum(y0, rows) < 0) | (torch.minimum(y0, rows) >= size)
    image, line, vertex = (present & ~outside).nonzero(as_tuple=True)
    x0, y0 = x0[image, line, vertex], y0[image, line, vertex]
    width, height = columns[image, line, vertex] - x0, rows[image, line, vertex] - y0
    longer = torch.maximum(width.abs(), height.abs()).clamp(min=1)
    shorter = torch.minimum(width.abs(), height.abs())
    slope = (shorter.double() * 2.0**SLOPE_BITS / longer).long() + 1

    segment = torch.arange(len(longer), device=longer.device).repeat_interleave(longer)
    step = torch.arange(len(segment), device=longer.device) - (longer.cumsum(0) - longer)[segment]
    aside = (slope[segment] * step + 2 ** (SLOPE_BITS - 1)) >> SLOPE_BITS
    steep = (height.abs() > width.abs())[segment]
    x = x0[segment] + torch.where(width > 0, 1, -1)[segment] * torch.where(steep, aside, step)
    y = y0[segment] + torch.where(height > 0, 1, -1)[segment] * torch.where(steep, step, aside)
    inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
    place = (image[segment] * size + y) * size + x
    return place[inside], line[segment][inside]
