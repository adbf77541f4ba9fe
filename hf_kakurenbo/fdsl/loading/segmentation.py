"""Images from formulas with a mask, for semantic segmentation: map-style or as a stream."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage

from ..catalog import category_parameters, find_family, segmentation_images
from ..kernels.drawing import Image
from ..kernels.labelled_contours import Labelled, draw_labelled
from ..kernels.random_numbers import SEED_BELOW, uniform, whole_number
from ..parameters import read_parameters
from .arguments import MODES, SPLITS, VALIDATION_FROM, integer_in, one_of, side_of
from .pixels import to_pil, to_tensor
from .rows import NamedRows
from .selection import Selection, select
from .shards import DEFAULT_SHARDS, count_shards

CATEGORIES = 254
"""Those of a mask of 8 bits, without 0, the background, and 255, which losses ignore."""

_MOST_CONTOURS = 4096
# After the numbers that place a contour, see `SegRCDB.draw_instance`.
_CATEGORY_COUNTER = 2


class FDSLSegmentation(NamedRows):
    """Images of many contours and masks of their categories (SegRCDB, arXiv 2309.17083), drawn on access.

    Every image is a function of (seed, index): it is the same on every machine, in every worker and in any order. An
    example is `{"image": …, "mask": …, "sample_id": int}`. The image is a `PIL.Image.Image` and the mask one of mode
    `"L"`, of the same size, whose pixels are the indices of `classes`; with `as_tensor` uint8 tensors (channels,
    height, width) and (height, width). The mask is the one that the paper calls M1 and its program draws by default: a
    pixel is of the category whose line was drawn last there, and 0 where no line is. `sample_id` is the index.
    "validation" has the categories of "train" and none of its images. A slice or a list of indices gives a list for
    each column, and `select` and `with_transform` are those of `datasets.Dataset`.

    Args:
        name: `"segrcdb-20k"`, as many images as the published script makes; `"segrcdb-118k"`, about as many as
            COCO-Stuff has, with which the paper compares it; or `"segrcdb-test"`, 8 images.
        split: `"train"`, or `"validation"`, a tenth as many.
        image_size: height and width in pixels, in 1..32,766; the published images have 512. At other sizes the drawing
            is scaled, and its lines stay one pixel wide.
        color: draw lines in colours; False draws them in gray.
        mode: `"RGB"` has three channels, also of a gray image; `"L"` has one.
        seed: another seed gives other categories and other images; in 0..2**63 − 1.
        images: all (None), the first n (int), a slice or range of them, or a list of numbers; there are 2**32.
        categories: how many, in 1..254; a contour is of one of them at random.
        contours: how many an image has, in 1..4096.
        as_tensor: give tensors, without passing through PIL.
        parameters: a folder of CSV files with the parameters of categories of your own, at most 254, instead of
            `categories`; those that SegRCDB's program writes are read.

    Attributes:
        name, split, image_size, color, mode, seed, contours, as_tensor: as given.
        family: the `Family` of the categories.
        parameters: of each category, float64 (1, columns of the family).
        image_numbers: range or tuple; which images these are.

    Raises:
        ValueError: an argument is out of range; the message says what is possible.
        TypeError: an argument is of the wrong type.
        FileNotFoundError: there is no such folder of parameters.
    """

    def __init__(
        self,
        name: str,
        split: str = "train",
        *,
        image_size: int = 512,
        color: bool = False,
        mode: str = "RGB",
        seed: int = 0,
        images: Selection = None,
        categories: int = CATEGORIES,
        contours: int = 32,
        as_tensor: bool = False,
        parameters: str | os.PathLike[str] | None = None,
    ) -> None:
        count = segmentation_images(name)
        self.name = name
        self.family = find_family("segrcdb")
        self.split = one_of("split", str(split), SPLITS)
        self.image_size = side_of("image_size", image_size, 1)
        self.color = bool(color)
        self.mode = one_of("mode", mode, MODES)
        self.seed = integer_in("seed", seed, 0, SEED_BELOW - 1)
        self.contours = integer_in("contours", contours, 1, _MOST_CONTOURS)
        self.as_tensor = bool(as_tensor)
        wanted = integer_in("categories", categories, 1, CATEGORIES)
        self._given = parameters is not None
        if parameters is None:
            self.parameters = [category_parameters(self.family, self.seed, category) for category in range(wanted)]
        else:
            self.parameters = read_parameters(parameters, self.family)
        default = count if self.split == "train" else max(1, count // 10)
        self.image_numbers = select("images", images, default, VALIDATION_FROM)
        self._check_agreement(parameters)

    def _check_agreement(self, folder: Any) -> None:
        if self.color and self.mode == "L":
            raise ValueError("color=True needs three channels and mode='L' has one; use mode='RGB', or color=False.")
        if len(self.parameters) > CATEGORIES:
            raise ValueError(
                f"{folder} has {len(self.parameters)} categories; a mask of 8 bits has at most {CATEGORIES}, besides "
                "the background and the value that losses ignore. Leave some out."
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """What each value of a mask stands for: `"background"`, then each category, as `segrcdb-00000`."""
        return ("background", *(f"{self.family.name}-{number:05d}" for number in range(len(self.parameters))))

    @property
    def features(self) -> Any:
        """The `datasets.Features`: two images (with `as_tensor` arrays) and an int64."""
        from datasets import Array2D, Array3D, Features, Value
        from datasets import Image as ImageFeature

        shape = (self.image_size, self.image_size)
        image = Array3D((len(self.mode), *shape), "uint8") if self.as_tensor else ImageFeature()
        mask = Array2D(shape, "uint8") if self.as_tensor else ImageFeature()
        return Features({"image": image, "mask": mask, "sample_id": Value("int64")})

    @property
    def rows_fingerprint(self) -> str:
        """What decides which sample is where, at any size and in any colours; a resumed training compares it."""
        own = blake2b(np.concatenate(self.parameters).tobytes()).hexdigest() if self._given else ""
        return (
            f"{self.family.name} {self.family.version}, seed {self.seed}, {self.split}, categories "
            f"{len(self.parameters)} {own}, contours {self.contours}, images {self.image_numbers}"
        )

    def __len__(self) -> int:
        return len(self.image_numbers)

    def _draw_rows(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        return [self._example(index, *self._draw(index)) for index in indices]

    def _example(self, index: int, image: Image, mask: NDArray[np.uint8]) -> dict[str, Any]:
        if self.as_tensor:
            return {"image": to_tensor(image, self.mode), "mask": torch.from_numpy(mask), "sample_id": index}
        return {"image": to_pil(image, self.mode), "mask": PILImage.fromarray(mask), "sample_id": index}

    def _draw(self, index: int) -> tuple[Image, NDArray[np.uint8]]:
        number = self.image_numbers[index] + (VALIDATION_FROM if self.split == "validation" else 0)
        shapes = (self._contours(number, position) for position in range(self.contours))
        return draw_labelled(shapes, self.image_size, self.color)

    def _contours(self, number: int, position: int) -> Labelled:
        key = self.family.instance_key(self.seed, number, position)
        category = whole_number(uniform(key, _CATEGORY_COUNTER), 0, len(self.parameters) - 1)
        drawn = self.family.draw_instance(self.parameters[category], position, key)
        return Labelled(drawn, category + 1, np.uint64(key))

    def __repr__(self) -> str:
        kind = "colour" if self.color else "gray"
        return (
            f"FDSLSegmentation({self.name!r}, {self.split!r}: {len(self):,} images of {self.contours} contours of "
            f"{len(self.parameters)} categories, {self.image_size}×{self.image_size} {kind}, mode {self.mode}, seed "
            f"{self.seed})"
        )


def load_fdsl_segmentation(
    name: str, split: str = "train", *, streaming: bool = False, shards: int = DEFAULT_SHARDS, **options: Any
) -> Any:
    """Load a dataset of images and masks from formulas, by name: `segrcdb-20k`, `segrcdb-118k` or `segrcdb-test`.

    Args:
        name: the name.
        split: `"train"` or `"validation"`, which has the same categories and none of the same images.
        streaming: give a `datasets.IterableDataset` instead of a map-style dataset.
        shards: into how many shards at most a stream is cut; see `hf_kakurenbo.fdsl.loading.shards.count_shards`.
        **options: those of `FDSLSegmentation`: image_size, color, mode, seed, images, categories, contours, as_tensor,
            parameters.

    Returns:
        `FDSLSegmentation`, or with `streaming` an `FDSLStream`, which is a `datasets.IterableDataset`.

    Raises:
        ValueError: an argument is out of range; the message says what is possible.
        TypeError: an argument is of the wrong type, or there is no such option.
        FileNotFoundError: there is no such folder of parameters.
    """
    count_shards(1, shards)
    images = FDSLSegmentation(name, split, **options)
    if not streaming:
        return images
    from .information import describe
    from .streaming import make_stream

    return make_stream(images, describe({split: images}), shards)
