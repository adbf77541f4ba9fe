"""How images are stored on disk: one class per format, all of them read by `datasets.load_dataset`."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ...utils.files import ends_with, remove_leftovers, written_beside
from ..loading.dataset import FDSLDataset
from ..loading.png import encode_png

_ROWS_PER_GROUP = 100

# The chunk that closes a PNG. A million small files are not waited for one by one until they are on the disk, so a
# power cut may leave them empty or cut off.
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


@dataclass(frozen=True)
class Part:
    """A part of the work: images with consecutive sample ids.

    Args:
        number: which one.
        ids: the sample ids.
        folder: where the split is stored.
        workplace: where files are written before they take their final name.
    """

    number: int
    ids: range
    folder: Path
    workplace: Path

    @property
    def prefix(self) -> str:
        """How files of this part are named while they are written."""
        return f"{self.folder.name}-{self.number:06d}-"

    def remove_leftovers(self) -> None:
        """Remove what a killed process left half written."""
        remove_leftovers(self.workplace, self.prefix)


class Format(Protocol):
    """A way to store images."""

    def is_done(self, part: Part, dataset: FDSLDataset) -> bool:
        """Whether a part is complete."""

    def write(self, part: Part, dataset: FDSLDataset) -> Iterator[bool]:
        """Write a part; yield for each image whether it was written, False if it was there already."""


class ImageFolder:
    """One PNG file per image, in one folder per category: `train/00000/00000_000000012.png`."""

    @staticmethod
    def _path(part: Part, dataset: FDSLDataset, sample_id: int) -> Path:
        label = sample_id // dataset.instances
        return part.folder / f"{label:05d}" / f"{label:05d}_{sample_id:09d}.png"

    def is_done(self, part: Part, dataset: FDSLDataset) -> bool:
        """Whether every image is there."""
        return all(ends_with(self._path(part, dataset, sample_id), _PNG_END) for sample_id in part.ids)

    def write(self, part: Part, dataset: FDSLDataset) -> Iterator[bool]:
        """Write the images that are not there yet."""
        for sample_id in part.ids:
            path = self._path(part, dataset, sample_id)
            missing = not ends_with(path, _PNG_END)
            if missing:
                path.parent.mkdir(parents=True, exist_ok=True)
                encoded = encode_png(dataset[sample_id]["image"])
                with written_beside(path, part.workplace, part.prefix, sync=False) as stream:
                    stream.write(encoded)
            yield missing


class _OneFilePerPart:
    suffix: ClassVar[str]
    ending: ClassVar[bytes]

    def _path(self, part: Part) -> Path:
        return part.folder / f"{part.number:06d}.{self.suffix}"

    def is_done(self, part: Part, dataset: FDSLDataset) -> bool:
        """Whether the file is there and complete."""
        return ends_with(self._path(part), self.ending)


class Parquet(_OneFilePerPart):
    """Files of images, labels and sample ids, with the dataset's features: `train/000000.parquet`."""

    suffix = "parquet"
    ending = b"PAR1"

    def write(self, part: Part, dataset: FDSLDataset) -> Iterator[bool]:
        """Write the file."""
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        schema = dataset.features.arrow_schema
        part.folder.mkdir(parents=True, exist_ok=True)
        with (
            written_beside(self._path(part), part.workplace, part.prefix) as stream,
            pq.ParquetWriter(stream, schema) as writer,
        ):
            remaining = iter(part.ids)
            while ids := list(islice(remaining, _ROWS_PER_GROUP)):
                rows = []
                for sample_id in ids:
                    rows.append(_row(dataset[sample_id]))
                    yield True
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _row(example: dict[str, Any]) -> dict[str, Any]:
    path = f"{example['sample_id']:09d}.png"
    return {**example, "image": {"bytes": encode_png(example["image"]), "path": path}}


class WebDataset(_OneFilePerPart):
    """Tar files in which a sample is `000000012.png` and `000000012.cls`: `train/000000.tar`."""

    suffix = "tar"
    ending = bytes(2 * tarfile.BLOCKSIZE)

    def write(self, part: Part, dataset: FDSLDataset) -> Iterator[bool]:
        """Write the file."""
        part.folder.mkdir(parents=True, exist_ok=True)
        with (
            written_beside(self._path(part), part.workplace, part.prefix) as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for sample_id in part.ids:
                example = dataset[sample_id]
                _add(tar, f"{sample_id:09d}.png", encode_png(example["image"]))
                _add(tar, f"{sample_id:09d}.cls", str(example["label"]).encode())
                yield True


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # with no time and no owner: the same bytes whoever writes it, and when
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


FORMATS: dict[str, Format] = {"imagefolder": ImageFolder(), "parquet": Parquet(), "webdataset": WebDataset()}
"""The formats, by name."""
