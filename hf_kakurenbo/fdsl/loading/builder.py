"""The images as a `datasets` builder: streamed, or built once into the cache of `datasets`."""

# `datasets` replaces functions that a builder's module imports (open, os.path, pathlib.Path, numpy.load, …) by its own:
# whatever reads files stands elsewhere.

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from typing import Any

import datasets

from ..catalog import find_entry, find_family, list_fdsl
from ..parameters import read_parameters
from .arguments import SPLITS
from .dataset import FDSLDataset
from .information import NAME, describe, estimate_bytes, version_of
from .png import encode_png
from .selection import Selection
from .shards import DEFAULT_SHARDS, count_shards, cut
from .streaming import FDSLStream, make_stream

_OWN_TO_DATASETS = {field.name for field in fields(datasets.BuilderConfig)}


@dataclass
class FDSLConfig(datasets.BuilderConfig):
    """A named dataset and the options of `load_fdsl`, under the same names.

    Its version is the version of the family, so that images built into the cache are never older than the formula.
    """

    image_size: int = 224
    draw_size: int | None = None
    color: bool = False
    mode: str = "RGB"
    seed: int = 0
    points: int | None = None
    patches: bool = True
    categories: Selection = None
    instances: Selection = None
    shards: int = DEFAULT_SHARDS
    parameters: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.version = version_of(find_family(find_entry(self.name).family))

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: Any = None) -> str:
        """The name of the folder in the cache: the name, and a digest of what it stands for and of all options."""
        # The defaults and what a name stands for too: both may be others in another session or release.
        described: dict[str, Any] = asdict(find_entry(self.name))
        described["options"] = {
            field.name: repr(getattr(self, field.name)) for field in fields(self) if field.name not in _OWN_TO_DATASETS
        }
        if self.parameters is not None:
            described["options"]["parameters"] = self._digest_parameters()
        digest = sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
        return super().create_config_id({"options": digest[:20]}, custom_features)

    def load(self) -> dict[str, FDSLDataset]:
        """The dataset of each split."""
        excluded = {"shards", "parameters", *_OWN_TO_DATASETS}
        options = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in excluded}
        options["parameters"] = self._read_parameters()
        return {split: FDSLDataset(self.name, split, **options) for split in SPLITS}

    def _read_parameters(self) -> Any:
        if self.parameters is None:
            return None
        return read_parameters(self.parameters, find_family(find_entry(self.name).family))

    def _digest_parameters(self) -> str:
        digest = sha256()
        for parameters in self._read_parameters():
            digest.update(len(parameters).to_bytes(8, "little") + parameters.tobytes())
        return digest.hexdigest()


class _ConfigsByName(Mapping[str, FDSLConfig]):
    """One for every name in the catalog, also for those that are registered later; made when it is asked for."""

    def __getitem__(self, name: str) -> FDSLConfig:
        if name not in list_fdsl():
            raise KeyError(name)
        return FDSLConfig(name=name)

    def __iter__(self) -> Iterator[str]:
        return iter(list_fdsl())

    def __len__(self) -> int:
        return len(list_fdsl())


class FDSL(datasets.GeneratorBasedBuilder):
    """Images from formulas, for `datasets`: `load_dataset("fdsl", name)` uses it once `hf_kakurenbo` is imported.

    Args:
        cache_dir: where built datasets are kept; the cache of `datasets` by default.
        dataset_name: the name of the folder in it.
        config_name: as `list_fdsl` shows them.
        data_files, data_dir: refused: there are no files.
        **options: those of `FDSLConfig` and of `datasets.DatasetBuilder`.

    Raises:
        ValueError, TypeError: as `load_fdsl`.
    """

    BUILDER_CONFIG_CLASS = FDSLConfig
    builder_configs = _ConfigsByName()

    def __init__(
        self,
        cache_dir: str | None = None,
        dataset_name: str | None = NAME,
        config_name: str | None = None,
        *,
        data_files: Any = None,
        data_dir: str | None = None,
        **options: Any,
    ) -> None:
        if data_files or data_dir:
            raise ValueError(
                "FDSL images are computed and have no files; leave data_files and data_dir out. Parameters of your own "
                "are given as parameters=FOLDER."
            )
        if config_name is None:
            raise ValueError(f'Name a dataset: load_dataset("fdsl", NAME). There are: {", ".join(list_fdsl())}.')
        find_entry(config_name)
        super().__init__(cache_dir, dataset_name, config_name, **options)

    def _info(self) -> datasets.DatasetInfo:
        self._images = self.config.load()
        count_shards(1, self.config.shards)
        return describe(self._images)

    def download_and_prepare(self, *args: Any, **options: Any) -> None:
        """Build the dataset, as `datasets.DatasetBuilder.download_and_prepare`, where the disk has room for it."""
        if not self.info.size_in_bytes:
            for name, images in self._images.items():
                self.info.splits[name].num_bytes = estimate_bytes(images)
            size = sum(split.num_bytes for split in self.info.splits.values())
            self.info.dataset_size = self.info.size_in_bytes = size
        super().download_and_prepare(*args, **options)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(
                name=name,
                gen_kwargs={
                    "images": images,
                    "shards": cut(len(images), count_shards(len(images), self.config.shards)),
                },
            )
            for name, images in self._images.items()
        ]

    def _generate_examples(self, images: FDSLDataset, shards: list[range]) -> Iterator[tuple[int, dict[str, Any]]]:
        for shard in shards:
            for sample_id in shard:
                example = images[sample_id]
                yield sample_id, {**example, "image": {"bytes": encode_png(example["image"]), "path": None}}

    def as_streaming_dataset(
        self, split: str | None = None, base_path: str | None = None, *, as_tensor: bool = False
    ) -> Any:
        """A stream of a split, or a `datasets.IterableDatasetDict` of both.

        Args:
            split: `"train"`, `"validation"`, `"train+validation"` (sample ids count from 0 in each) or None for both.
            base_path: not used; there are no files.
            as_tensor: uint8 tensors (channels, height, width) instead of PIL images.

        Raises:
            ValueError: there is no such split.
        """
        if split is None:
            return datasets.IterableDatasetDict({name: self._stream(name, as_tensor) for name in SPLITS})
        names = list(SPLITS) if str(split) == "all" else [name.strip() for name in str(split).split("+")]
        streams = [self._stream(name, as_tensor) for name in names]
        return streams[0] if len(streams) == 1 else datasets.concatenate_datasets(streams)

    def _stream(self, split: str, as_tensor: bool) -> FDSLStream:
        if split not in self._images:
            raise ValueError(
                f"split must be 'train' or 'validation', got {split!r}. For a part of a stream use categories=, "
                "instances=, or its take and skip."
            )
        images = copy(self._images[split])
        images.as_tensor = as_tensor
        return make_stream(images, self.info, self.config.shards)
