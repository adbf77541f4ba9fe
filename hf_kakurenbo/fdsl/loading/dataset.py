"""Images from formulas as a map-style dataset: each is drawn when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..catalog import category_parameters, find_entry, find_family
from ..family import Family, Parameters
from ..kernels.drawing import MOST_POINTS, Drawing, Image
from ..kernels.random_numbers import SEED_BELOW
from ..kernels.shrinking import shrink
from ..parameters import check_categories
from .arguments import MODES, SPLITS, VALIDATION_FROM, integer_in, one_of, side_of
from .pixels import to_pil, to_tensor
from .rows import NamedRows
from .selection import Selection, select

# More than the largest dataset has categories: another seed than the shipped one searches for each of them once.
_CATEGORIES_KEPT = 2**16


@lru_cache(maxsize=_CATEGORIES_KEPT)
def _cached_parameters(family: Family, seed: int, category: int) -> Parameters:
    parameters = category_parameters(family, seed, category)
    parameters.flags.writeable = False
    return parameters


class FDSLDataset(NamedRows):
    """A labelled image dataset computed from formulas (Kataoka et al., arXiv 2206.09132), drawn on access.

    Every image is a function of (seed, category, instance): it is the same on every machine, in every worker and in
    any order. An example is `{"image": …, "label": int, "sample_id": int}`; the image is a `PIL.Image.Image`, or
    with `as_tensor` a uint8 tensor (channels, height, width). `sample_id` is `label * instances + position`, which is
    also the index. "validation" has the categories of "train" and none of its instances. A slice or a list of indices
    gives a list for each column, and `select` and `with_transform` are those of `datasets.Dataset`.

    Args:
        name: as `list_fdsl` shows them.
        split: `"train"` or `"validation"`.
        image_size: height and width in pixels, in 1..32,766.
        draw_size: height and width, in pixels, at which an image is drawn before it is made smaller, with the bicubic
            filter of Pillow, to `image_size`; at least `image_size`. None is the size of the published images (362 for
            FractalDB and 2D-OFDB, 512 for RCDB and VisualAtom, 224 for ExFractalDB and 3D-OFDB), or `image_size` where
            that is larger, or where a family was not published. `draw_size=image_size` draws at full contrast.
        color: draw in colours; False draws in gray.
        mode: `"RGB"` has three channels, also of a gray image; `"L"` has one.
        seed: another seed gives other categories and other images; in 0..2**63 − 1.
        points: how many points are drawn, in 1..2**31 − 1, for the families that draw points; None is the family's
            number, which belongs to its published size.
        patches: where the family draws each point as a random 3×3 patch, as FractalDB and 2D-OFDB do, False draws
            pixels.
        categories: all (None), the first n (int), a slice or range of them, or a list of numbers. Labels count from 0
            in what is selected.
        instances: as `categories`, of the images of each category. None is the number that the name stands for, of
            "validation" a tenth of it. There are 2**32 of each.
        transform: called with each image (PIL, or tensor when `as_tensor`) as the transforms of torchvision are; what
            it returns is the example's image.
        as_tensor: give tensors, without passing through PIL.
        device: where batches (`__getitems__`, which a DataLoader calls) are drawn, all images of one at once: `"cuda"`,
            in the main process. Needs `as_tensor`. The parameters and the distribution are those of the CPU, but the
            images of the fractal families are not the same, pixel by pixel. None draws one by one on the CPU.
        parameters: the parameters of categories of your own, each float64 (rows, columns of the family), instead of
            those of `name`, which then says the family and the number of instances.

    Attributes:
        name, split, image_size, color, mode, seed, points, patches, transform, as_tensor, device, parameters: as
            given.
        draw_size: as given, or the default.
        family: the `Family`.
        category_numbers: range or tuple; the number in its family of the category of each label.
        instance_numbers: range or tuple; the instances of each category, in order.

    Raises:
        ValueError: an argument is out of range; the message says what is possible.
        TypeError: an argument is of the wrong type.
    """

    def __init__(
        self,
        name: str,
        split: str = "train",
        *,
        image_size: int = 224,
        draw_size: int | None = None,
        color: bool = False,
        mode: str = "RGB",
        seed: int = 0,
        points: int | None = None,
        patches: bool = True,
        categories: Selection = None,
        instances: Selection = None,
        transform: Callable[[Any], Any] | None = None,
        as_tensor: bool = False,
        device: torch.device | str | None = None,
        parameters: Sequence[Parameters] | None = None,
    ) -> None:
        entry = find_entry(name)
        self.name = entry.name
        self.family = find_family(entry.family)
        self.split = one_of("split", str(split), SPLITS)
        self.image_size = side_of("image_size", image_size, 1)
        published = max(self.family.draw_size or 0, self.image_size)
        self.draw_size = published if draw_size is None else side_of("draw_size", draw_size, self.image_size)
        self.color = bool(color)
        self.mode = one_of("mode", mode, MODES)
        self.seed = integer_in("seed", seed, 0, SEED_BELOW - 1)
        self.points = None if points is None else integer_in("points", points, 1, MOST_POINTS)
        self.patches = bool(patches)
        self.transform = transform
        self.as_tensor = bool(as_tensor)
        self.device = None if device is None else torch.device(device)
        self.parameters = None if parameters is None else check_categories(self.family, parameters)
        count = entry.categories if self.parameters is None else len(self.parameters)
        self.category_numbers = select("categories", categories, count, count)
        default = entry.instances if self.split == "train" else max(1, entry.instances // 10)
        self.instance_numbers = select("instances", instances, default, VALIDATION_FROM)
        self._check_agreement()

    def _check_agreement(self) -> None:
        if self.color and self.mode == "L":
            raise ValueError("color=True needs three channels and mode='L' has one; use mode='RGB', or color=False.")
        if self.points is not None and self.family.points is None:
            raise ValueError(f"{self.name} is not drawn with points, got points={self.points}; leave points out.")
        if not self.patches and self.family.points is None:
            raise ValueError(f"{self.name} is not drawn with points, got patches=False; leave patches out.")
        if self.transform is not None and not callable(self.transform):
            raise TypeError(
                f"transform must be callable with an image, got {self.transform!r}. Give a function such as "
                "torchvision.transforms.v2.RandomCrop(200), or None."
            )
        if self.device is not None and not self.as_tensor:
            raise ValueError(
                f"device={str(self.device)!r} draws tensors; give as_tensor=True too, or leave device out."
            )
        if self.parameters is not None and not self.parameters:
            raise ValueError("parameters is empty; give the parameters of one category at least.")

    @property
    def categories(self) -> int:
        """How many categories there are."""
        return len(self.category_numbers)

    num_categories = categories

    @property
    def instances(self) -> int:
        """How many images each category has."""
        return len(self.instance_numbers)

    @property
    def label(self) -> NDArray[np.int64]:
        """The label of each image, int64, (len(self),); nothing is drawn."""
        return np.repeat(np.arange(self.categories), self.instances)

    @property
    def features(self) -> Any:
        """The `datasets.Features`: an image, a ClassLabel with names such as `rcdb-00012`, an int64.

        The names are the family and the number of the category in it, so that datasets of several families can be
        concatenated.
        """
        from datasets import Array3D, ClassLabel, Features, Value
        from datasets import Image as ImageFeature

        names = [f"{self.family.name}-{category:05d}" for category in self.category_numbers]
        shape = (len(self.mode), self.image_size, self.image_size)
        image = Array3D(shape, "uint8") if self.as_tensor else ImageFeature()
        return Features({"image": image, "label": ClassLabel(names=names), "sample_id": Value("int64")})

    @property
    def rows_fingerprint(self) -> str:
        """What decides which sample is where, at any size and in any colours; a resumed training compares it."""
        own = "" if self.parameters is None else blake2b(np.concatenate(self.parameters).tobytes()).hexdigest()
        return (
            f"{self.family.name} {self.family.version}, seed {self.seed}, {self.split}, categories "
            f"{self.category_numbers} {own}, instances {self.instance_numbers}"
        )

    def __len__(self) -> int:
        return self.categories * self.instances

    def _draw_rows(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        if self.device is not None and len(indices):
            return self._draw_batch(indices)
        return [self._example(sample_id, self._to_image(self._draw(sample_id))) for sample_id in indices]

    def _to_image(self, pixels: Image) -> Any:
        return to_tensor(pixels, self.mode) if self.as_tensor else to_pil(pixels, self.mode)

    def _example(self, sample_id: int, image: Any) -> dict[str, Any]:
        if self.transform is not None:
            image = self.transform(image)
        return {"image": image, "label": sample_id // self.instances, "sample_id": sample_id}

    @property
    def _drawing(self) -> Drawing:
        return Drawing(self.draw_size, self.color, self.points, self.patches)

    def _draw(self, sample_id: int) -> Image:
        varied, key = self._vary(sample_id)
        return shrink(self.family.render(varied, self._drawing, key), self.image_size)

    def _draw_batch(self, sample_ids: Sequence[int]) -> list[dict[str, Any]]:
        from ..kernels.shrinking_batch import shrink_batch

        assert self.device is not None
        varied, keys = zip(*map(self._vary, sample_ids), strict=True)
        pixels = shrink_batch(self.family.render_batch(varied, self._drawing, keys, self.device), self.image_size)
        images = pixels.expand(-1, 3, -1, -1) if self.mode == "RGB" else pixels
        return [self._example(sample_id, image) for sample_id, image in zip(sample_ids, images, strict=True)]

    def _vary(self, sample_id: int) -> tuple[Any, np.uint64]:
        label, position = divmod(sample_id, self.instances)
        category, instance = self.category_numbers[label], self.instance_numbers[position]
        if self.split == "validation":
            instance += VALIDATION_FROM
        key = self.family.instance_key(self.seed, category, instance)
        return self.family.draw_instance(self._parameters(category), instance, key), key

    def _parameters(self, category: int) -> Parameters:
        if self.parameters is not None:
            return self.parameters[category]
        return _cached_parameters(self.family, self.seed, category)

    def __repr__(self) -> str:
        kind = "colour" if self.color else "gray"
        if self.draw_size != self.image_size:
            kind += f" drawn at {self.draw_size}×{self.draw_size}"
        return (
            f"FDSLDataset({self.name!r}, {self.split!r}: {self.categories:,} categories × {self.instances:,} instances "
            f"= {len(self):,} images, {self.image_size}×{self.image_size} {kind}, mode {self.mode}, seed {self.seed})"
        )
