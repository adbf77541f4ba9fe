"""The images as a stream: a `datasets.IterableDataset` that draws what is iterated over and nothing else.

It rests on internals of `datasets`: `_BaseExamplesIterable`, what an IterableDataset iterates over. The public ways
to one, `IterableDataset.from_generator` and a builder's `_generate_examples`, encode each image as PNG and decode it
again as soon as the features are known, shuffle through a buffer that loses samples on resume, do not tell the
generator which epoch it is, and draw what `skip` skips.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from copy import deepcopy
from hashlib import blake2b
from typing import Any

import numpy as np
from datasets import IterableDataset
from datasets.iterable_dataset import _BaseExamplesIterable
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ...utils.examples_iterables import ExamplesInHand, one_to_one_chain, over_another_source, varied
from .permutation import Order
from .rows import NamedRows
from .shards import DEFAULT_SHARDS, count_shards, cut

# Before 4.6 the order of an epoch is asked for only of a dataset that has a ShufflingConfig.
_HAS_SHUFFLING_CONFIG = "shuffling" in inspect.signature(IterableDataset.__init__).parameters


class _Images(_BaseExamplesIterable):
    """Images in an order, cut into shards of consecutive positions."""

    # The examples are as the features say: they need no encoding or decoding.
    is_typed = True
    sleep_on_threads_shutdown = False

    def __init__(
        self, dataset: NamedRows, order: Order, features: Any, shards: int, kept: list[range] | None = None
    ) -> None:
        super().__init__()
        self._dataset = dataset
        self._order = order
        self._features = features
        self._shards = shards
        self._kept = cut(len(order), count_shards(len(order), shards)) if kept is None else kept

    @property
    def features(self) -> Any:
        return self._features

    @property
    def num_shards(self) -> int:
        return len(self._kept)

    def _init_state_dict(self) -> dict[str, Any]:
        self._state_dict = {"shard_idx": 0, "shard_example_idx": 0, "type": type(self).__name__}
        return self._state_dict

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        state: dict[str, Any] = self._state_dict or {"shard_idx": 0, "shard_example_idx": 0}
        while state["shard_idx"] < len(self._kept):
            shard = self._kept[state["shard_idx"]]
            while state["shard_example_idx"] < len(shard):
                position = shard[state["shard_example_idx"]]
                state["shard_example_idx"] += 1
                yield position, self._dataset[self._order[position]]
            state["shard_idx"] += 1
            state["shard_example_idx"] = 0

    def with_order(self, order: Order) -> _Images:
        """The same images in another order, or some of them."""
        return _Images(self._dataset, order, self._features, self._shards)

    @property
    def dataset(self) -> NamedRows:
        """The images, by sample id."""
        return self._dataset

    @property
    def order(self) -> Order:
        """The sample ids in their order."""
        return self._order

    def __len__(self) -> int:
        return sum(map(len, self._kept))

    def sample_ids(self) -> NDArray[np.int64]:
        """The sample ids in the order in which they are iterated over: (len(self),)."""
        return np.concatenate([self._order.numbers_at(shard) for shard in self._kept])

    def shuffle_data_sources(self, generator: np.random.Generator) -> _Images:
        # Of the bit generator NumPy promises the same numbers in every release, of the generator it does not.
        key = np.uint64(deepcopy(generator).bit_generator.random_raw())
        whole = len(self) == len(self._order)
        order = self._order if whole else self._order.blocks(self._kept)
        kept = cut(len(order), len(self._kept))
        return _Images(self._dataset, order.shuffled(key), self._features, self._shards, kept)

    def shard_data_sources(self, num_shards: int, index: int, contiguous: bool = True) -> _Images:
        chosen = self.split_shard_indices_by_worker(num_shards, index, contiguous=contiguous)
        kept = [self._kept[number] for number in chosen]
        return _Images(self._dataset, self._order, self._features, self._shards, kept)

    def reshard_data_sources(self) -> _Images:
        return self


class FDSLStream(IterableDataset):
    """A `datasets.IterableDataset` of images from formulas; what `load_fdsl(…, streaming=True)` returns.

    It does what any IterableDataset does, and four things better: `shuffle` is a permutation of all samples, exact
    when resumed by `state_dict` and `load_state_dict`; `skip` and `take` draw nothing that is skipped; no image is
    encoded on the way; it has a length, and its samples can be had by number. What changes the examples one by one
    (`map` without `batched` and `with_indices`, `with_format`, `remove_columns` and the like) keeps all of that; what
    `filter`, `batch` and a batched `map` return is a plain IterableDataset: shuffle, skip and take before them.
    """

    def __len__(self) -> int:
        return len(self._images())

    def shuffle(
        self, seed: int | None = None, generator: np.random.Generator | None = None, **unused: Any
    ) -> FDSLStream:
        """Put all samples in a random order, a different one in each epoch that `set_epoch` sets.

        Args:
            seed: the order; None is 0, so that all processes of a distributed training have the same.
            generator: gives the order instead of a seed; it is not advanced.
            **unused: `buffer_size` and the like, which `IterableDataset.shuffle` takes; there is no buffer.
        """
        if generator is None:
            generator = np.random.default_rng(seed or 0)
        if not _HAS_SHUFFLING_CONFIG:
            return self._with(self._images().shuffle_data_sources(generator))
        from datasets.iterable_dataset import ShufflingConfig

        return self._with(self._images(), shuffling=ShufflingConfig(deepcopy(generator), seed or 0))

    def skip(self, n: int) -> FDSLStream:
        """All but the first n samples, which are not drawn. `set_epoch` changes their order, and none of them."""
        images = self._images()
        return self._with(images.with_order(images.order.section(_count("skip", n), len(images.order))))

    def take(self, n: int) -> FDSLStream:
        """The first n samples. `set_epoch` changes their order, and none of them."""
        images = self._images()
        return self._with(images.with_order(images.order.section(0, _count("take", n))))

    def filter(self, *args: Any, **options: Any) -> IterableDataset:
        """Keep the examples for which a function is true; as `IterableDataset.filter`."""
        # Up to 4.6 it fails where examples have their features already, unless the dataset does not know of them.
        unaware = varied(self, _info=self._info.copy())
        unaware._info.features = None
        filtered = IterableDataset.filter(unaware, *args, **options)
        if not _HAS_SHUFFLING_CONFIG:  # before, what knows its features would encode and decode each image
            filtered._info.features = self._info.features
        return filtered

    def map(self, *args: Any, **options: Any) -> IterableDataset:
        """Apply a function to the examples when they are drawn; as `IterableDataset.map`."""
        return self._still_a_stream_of_images(super().map(*args, **options))

    def with_format(self, type: str | None = None) -> IterableDataset:  # noqa: A002 (the name that it overrides)
        """Give the examples as `"torch"`, `"numpy"`, … instead of Python objects; None is Python objects.

        `datasets` takes milliseconds to make a tensor of a PIL image; `load_fdsl(…, as_tensor=True)` takes none.
        """
        return self._still_a_stream_of_images(super().with_format(type))

    def remove_columns(self, *args: Any, **options: Any) -> IterableDataset:
        """Leave columns out; as `IterableDataset.remove_columns`."""
        return self._still_a_stream_of_images(super().remove_columns(*args, **options))

    def rename_column(self, *args: Any, **options: Any) -> IterableDataset:
        """Give a column another name; as `IterableDataset.rename_column`."""
        return self._still_a_stream_of_images(super().rename_column(*args, **options))

    def rename_columns(self, *args: Any, **options: Any) -> IterableDataset:
        """Give columns other names; as `IterableDataset.rename_columns`."""
        return self._still_a_stream_of_images(super().rename_columns(*args, **options))

    def select_columns(self, *args: Any, **options: Any) -> IterableDataset:
        """Leave all other columns out; as `IterableDataset.select_columns`."""
        return self._still_a_stream_of_images(super().select_columns(*args, **options))

    def samples(self) -> Dataset[dict[str, Any]]:
        """The samples as a map-style dataset of the same examples, which are drawn on access.

        Sample i is that of the i-th lowest `sample_id` in the stream: of all, when nothing was skipped or left out,
        number i.
        """
        images = self._images()
        every = len(images) == len(images.dataset)
        return _Samples(self, images.dataset, None if every else np.sort(images.sample_ids()))

    def order(self, epoch: int) -> NDArray[np.int64]:
        """In which order an epoch of the stream gives the samples of `samples`.

        Args:
            epoch: as `set_epoch` sets it.

        Returns:
            A permutation of 0..len − 1.
        """
        images = varied(self, _epoch=epoch)._prepare_ex_iterable_for_iteration()
        while not isinstance(images, _Images):
            images = images.ex_iterable
        sample_ids = images.sample_ids()
        if len(images) == len(images.dataset):
            return sample_ids
        return np.searchsorted(np.sort(sample_ids), sample_ids)

    def _images(self) -> _Images:
        """The images in the order of epoch 0."""
        images = one_to_one_chain(self._ex_iterable)[-1]
        if _HAS_SHUFFLING_CONFIG and self._shuffling:
            return images.shuffle_data_sources(self._shuffling.generator)
        return images

    def _with(self, images: _Images, **options: Any) -> FDSLStream:
        """The same stream of other images."""
        chain = over_another_source(one_to_one_chain(self._ex_iterable)[:-1], images)
        return FDSLStream(chain, info=self._info.copy(), split=self._split, formatting=self._formatting, **options)

    def _still_a_stream_of_images(self, changed: IterableDataset) -> IterableDataset:
        """A dataset made of this one, of this class if each of its examples is made of one image."""
        if not isinstance(one_to_one_chain(changed._ex_iterable)[-1], _Images):
            return changed
        kept = {"shuffling": self._shuffling} if _HAS_SHUFFLING_CONFIG else {}
        return FDSLStream(
            changed._ex_iterable, info=changed._info, split=changed._split, formatting=changed._formatting, **kept
        )

    def _made_of(self, examples: Sequence[dict[str, Any]]) -> list[Any]:
        """What the stream makes of examples as the images give them."""
        *outer, images = one_to_one_chain(self._ex_iterable)
        chain = over_another_source(outer, ExamplesInHand(examples, images.features))
        in_hand = IterableDataset(chain, info=self._info, split=self._split, formatting=self._formatting)
        # Not `iter(in_hand)`: in a worker it would look for shards to distribute.
        prepared = in_hand._prepare_ex_iterable_for_iteration()
        prepared._init_state_dict()
        return [example for _, example in prepared]


class _Samples(Dataset[dict[str, Any]]):
    """The samples of a stream by number.

    Args:
        stream: says what is made of an image.
        images: by sample id.
        sample_ids: those of the samples, ascending; None for all.
    """

    def __init__(self, stream: FDSLStream, images: NamedRows, sample_ids: NDArray[np.int64] | None) -> None:
        self._stream = stream
        self._images = images
        self._sample_ids = sample_ids
        self._unchanged = len(one_to_one_chain(stream._ex_iterable)) == 1 and not stream._formatting

    @property
    def rows_fingerprint(self) -> str:
        """As that of an `FDSLDataset`."""
        chosen = "all" if self._sample_ids is None else blake2b(self._sample_ids.tobytes()).hexdigest()
        return f"{self._images.rows_fingerprint}, samples {chosen}"

    def __len__(self) -> int:
        return len(self._images) if self._sample_ids is None else len(self._sample_ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The samples of several numbers."""
        sample_ids = indices if self._sample_ids is None else self._sample_ids[np.asarray(indices)].tolist()
        examples = [self._images[sample_id] for sample_id in sample_ids]
        return examples if self._unchanged else self._stream._made_of(examples)


def _count(method: str, n: int) -> int:
    if n < 0:
        raise ValueError(f"{method} needs a number of samples, at least 0; got {n}.")
    return n


def make_stream(dataset: NamedRows, info: Any, shards: int = DEFAULT_SHARDS) -> FDSLStream:
    """A stream of the images of a dataset.

    Args:
        dataset: the images.
        info: the `datasets.DatasetInfo`; the features are those of the dataset.
        shards: into how many shards at most it is cut.
    """
    info = info.copy()
    info.features = dataset.features
    images = _Images(dataset, Order.of(len(dataset)), info.features, shards)
    return FDSLStream(images, info=info, split=dataset.split)
