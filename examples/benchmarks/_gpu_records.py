"""What was measured on a GPU, in one JSON file for each stage, written anew after every piece."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _gpu_stages import Piece, Result, Setting, Stage

# A piece that ended the process so often without a result is passed over: it would end the next one too.
_MOST_ENDS = 2
# Of an error's traceback, so many characters from the end are kept.
_KEPT_OF_ERROR = 1500


class Record:
    """The record of a stage.

    Args:
        folder: where the records are.
        stage: of which this is one.

    Attributes:
        environment: where it was measured; empty before the first piece.
        pieces: by name, each with its `"result"` and `"seconds"`, or with its `"error"`.
        ended: how often a piece was begun that neither gave a result nor raised an error.

    Raises:
        ValueError: the file is no record.
    """

    def __init__(self, folder: Path, stage: Stage) -> None:
        self.path, self.stage = folder / f"{stage.name}.json", stage
        self.environment: dict[str, Any] = {}
        self.pieces: dict[str, dict[str, Any]] = {}
        self.ended: dict[str, int] = {}
        if not self.path.exists():
            return
        try:
            held = json.loads(self.path.read_text(encoding="utf-8"))
            self.environment, self.pieces, self.ended = held["environment"], held["pieces"], held["ended"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path} is no record of a stage ({error!r}). Remove it, or name other --records."
            ) from error

    @property
    def results(self) -> dict[str, Result]:
        """What was measured, by piece."""
        return {name: piece["result"] for name, piece in self.pieces.items() if "result" in piece}

    @property
    def left(self) -> list[Piece]:
        """The pieces without a result, but for those that have ended the process again and again."""
        without = [piece for piece in self.stage.pieces if piece.name not in self.results]
        return [piece for piece in without if self.ended.get(piece.name, 0) < _MOST_ENDS]

    def require_environment(self, environment: dict[str, Any]) -> None:
        """Check that what is measured goes beside what was.

        Raises:
            ValueError: it was measured on another device, or with other releases.
        """
        both = {name: (self.environment.get(name), value) for name, value in environment.items()}
        differing = [f"{name}: {old} -> {new}" for name, (old, new) in both.items() if old != new]
        if self.pieces and differing:
            raise ValueError(
                f"{self.path} was measured elsewhere ({'; '.join(differing)}), and figures of two machines do not go "
                "into one record. Name another folder by --records, or measure the stage anew by --again."
            )
        self.environment = environment

    def measure(self, piece: Piece, setting: Setting) -> bool:
        """Measure a piece and write it down; whether it gave a result."""
        self.ended[piece.name] = self.ended.get(piece.name, 0) + 1
        self.write()
        started = time.perf_counter()
        try:
            measured = {"result": piece.measure(setting)}
        except Exception:
            measured = {"error": traceback.format_exc()[-_KEPT_OF_ERROR:]}
        del self.ended[piece.name]
        self.pieces[piece.name] = {**measured, "seconds": round(time.perf_counter() - started, 1)}
        self.write()
        return "result" in measured

    def write(self) -> None:
        """Write the file as a whole, so that one that is killed meanwhile leaves the one before."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        held = {"environment": self.environment, "pieces": self.pieces, "ended": self.ended}
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, self.path)


def measure_stage(record: Record, setting: Setting, budget: float, say: Callable[[str], None] = print) -> list[Piece]:
    """Measure the pieces of a stage that are left, as far as the budget goes.

    Args:
        record: of the stage.
        setting: where and how.
        budget: seconds that this may take.
        say: reports what is done.

    Returns:
        The pieces for which no time was left.
    """
    until = time.monotonic() + budget
    left = record.left
    for done, piece in enumerate(left):
        expected = 0 if setting.rehearse else piece.seconds
        if time.monotonic() + expected > until:
            return left[done:]
        say(f"{record.stage.name}: {piece.name}")
        now = Setting(setting.rehearse, setting.data, record.results)
        if not record.measure(piece, now):
            say(f"{record.stage.name}: {piece.name} failed:\n{record.pieces[piece.name]['error']}")
    return []
