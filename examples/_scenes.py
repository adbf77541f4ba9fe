"""Scenes to segment, drawn from formulas: contours with waves on them, before a fractal, with the class of each pixel.

A scene is a function of its number: the same whenever it is drawn. Its objects are filled contours of the family
VisualAtom (arXiv 2303.01112), without the noise; the number of waves around a contour is the class of the object, and
the hue of its border tends to go with it. Its ground is a coloured fractal of FractalDB. What is drawn later covers
what was drawn before, in the image and in the mask alike. The border of an object counts for nothing, as in Pascal VOC.
"""

from __future__ import annotations

import colorsys
from typing import NamedTuple

import numpy as np
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from hf_kakurenbo import load_fdsl
from hf_kakurenbo.fdsl.kernels.contours import Contours, first_polygon, outward_moves

CLASSES = ("ground", "disc", "three waves", "five waves", "eight waves")
"""The class of each value of a mask."""
WAVES = (0, 3, 5, 8)
"""Of the objects of each class but the ground."""
IGNORED = 255
"""What a mask holds where nothing is asked: the `semantic_loss_ignore_index` of Transformers' models."""

MOST_OBJECTS = 4
HUE_SPREAD = 0.05
"""The standard deviation of the hues of a class, in turns; the classes are a quarter apart."""
_GROUNDS = 60
# Lengths are those of an image of 512 × 512, as in the family.
_SIZE = 512
_VERTICES = 64
_LINES = 10


class Scene(NamedTuple):
    """One scene.

    Attributes:
        image: uint8, (size, size, 3).
        mask: uint8, (size, size), the index in `CLASSES` of what is there, or `IGNORED`.
        ground: uint8, (size, size, 3), the image before the objects were drawn.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    ground: NDArray[np.uint8]


def scenes(count: int, size: int, seed: int = 0) -> Dataset:
    """The first scenes of a seed, as a dataset with the columns `image` and `label`, both images.

    Args:
        count: how many.
        size: their height and width in pixels.
        seed: another one gives other scenes.
    """
    drawn = [draw_scene(index, size, seed) for index in range(count)]
    return Dataset.from_dict(
        {
            "image": [Image.fromarray(scene.image) for scene in drawn],
            "label": [Image.fromarray(scene.mask) for scene in drawn],
        },
        features=Features({"image": ImageFeature(), "label": ImageFeature()}),
    )


def draw_scene(index: int, size: int, seed: int = 0) -> Scene:
    """Scene number `index` of a seed.

    Args:
        index: at least 0.
        size: height and width in pixels.
        seed: another one gives other scenes.
    """
    random = np.random.default_rng((seed, index))
    ground = _draw_ground(index, size, seed)
    image, mask = ground.copy(), np.zeros((size, size), dtype=np.uint8)
    for _ in range(random.integers(MOST_OBJECTS + 1)):
        _draw_object(image, mask, random)
    return Scene(image, mask, ground)


def _draw_ground(index: int, size: int, seed: int) -> NDArray[np.uint8]:
    instance, category = divmod(index, _GROUNDS)
    fractals = load_fdsl(
        "fractaldb-60",
        image_size=size,
        draw_size=size,
        color=True,
        points=size**2,
        seed=seed,
        categories=slice(category, category + 1),
        instances=slice(instance, instance + 1),
        as_tensor=True,
    )
    return fractals[0]["image"].permute(1, 2, 0).numpy()


def _draw_object(image: NDArray[np.uint8], mask: NDArray[np.uint8], random: np.random.Generator) -> None:
    number = int(random.integers(len(WAVES)))
    contours = Contours(
        vertices=_VERTICES,
        lines=_LINES,
        radius_x=random.uniform(20, 40),
        radius_y=random.uniform(20, 40),
        center_x=random.uniform(60, _SIZE - 60),
        center_y=random.uniform(60, _SIZE - 60),
        noise_gain=0.0,
        outward=random.uniform(3.0, 8.0),
        # Half a sine for each: five times the same wave is a deep one.
        frequencies=(WAVES[number],) * 5,
    )
    size = len(mask)
    polygons = _polygons(contours, random.uniform(0, 2 * np.pi), size / _SIZE)
    shape = Image.new("L", (size, size))
    ImageDraw.Draw(shape).polygon(polygons[-1], fill=1)
    picture = Image.new("RGB", (size, size))
    # The outermost first: the inner ones are drawn over it.
    for polygon, color in zip(reversed(polygons), _colors(number, random), strict=True):
        ImageDraw.Draw(picture).polygon(polygon, fill=color)
    covered, inside = np.asarray(shape) > 0, np.asarray(shape.filter(ImageFilter.MinFilter(3))) > 0
    image[covered] = np.asarray(picture)[covered]
    mask[covered] = np.where(inside, number + 1, IGNORED)[covered]


def _polygons(contours: Contours, turned: float, scale: float) -> list[list[tuple[float, float]]]:
    """The corners of each line in pixels, the innermost first, the whole turned around its centre."""
    center = np.array([[contours.center_x], [contours.center_y]])
    angles = np.arange(contours.vertices) * (2 * np.pi / contours.vertices)
    moves = outward_moves(contours) * np.stack([np.cos(angles), np.sin(angles)])
    sine, cosine = np.sin(turned), np.cos(turned)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    first = np.stack(first_polygon(contours)) - center
    lines = [(turn @ (first + line * moves) + center) * scale for line in range(1, contours.lines + 1)]
    return [list(zip(*corners.tolist(), strict=True)) for corners in lines]


def _colors(number: int, random: np.random.Generator) -> list[tuple[int, int, int]]:
    """A colour for each line, from the outermost's, which tells a little of the kind of object, to any other."""
    hue = number / len(WAVES) + random.normal(0, HUE_SPREAD)
    outermost = 255 * np.array(colorsys.hsv_to_rgb(hue % 1, random.uniform(0.6, 1), random.uniform(0.6, 1)))
    shares = np.linspace(0, 1, _LINES)[:, None]
    colors = (1 - shares) * outermost + shares * random.integers(0, 256, size=3)
    return [tuple(color) for color in colors.astype(int).tolist()]
