"""Whether samples are forgotten while they rest: spaced repetition, and what its samples know when they come back.

```
python examples/benchmarks/returning.py                         # three small tasks, three seeds, about five minutes
python examples/benchmarks/returning.py fashion-mnist-10k       # another task of `hf-kakurenbo compare`
python examples/benchmarks/returning.py digits --quick          # a smoke test
```

A known sample rests for a random part of its interval I: with I = 2, half of the samples come back at once and half an
epoch later. Chance alone decides which, so whatever resting does to them shows when the two halves are compared.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import torch
from _report import table

from hf_kakurenbo import SampleLedger
from hf_kakurenbo.compare.methods import Method
from hf_kakurenbo.compare.tasks import find_tasks
from hf_kakurenbo.compare.training import settings_of, train
from hf_kakurenbo.hiding import register_policy
from hf_kakurenbo.hiding.policies.coin import is_known
from hf_kakurenbo.hiding.policies.spaced_repetition import SpacedRepetitionPolicy

TASKS = ("digits", "fdsl-cnn", "fdsl-cnn-augmented")


class Returned(NamedTuple):
    """Sums over samples that came back after the same pause."""

    samples: int
    known: int
    correct: int
    loss: float


_RETURNED: dict[tuple[int, int], list[Returned]] = defaultdict(list)
"""By the interval that a sample had, and the epochs until it came back."""


@register_policy("watched_spaced_repetition")
class WatchedSpacedRepetition(SpacedRepetitionPolicy):
    """Spaced repetition without a limit that notes what samples know when they come back."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(max_resting_fraction=1.0, seed=seed)
        self._left: dict[str, np.ndarray] | None = None

    def observe(self, ledger: SampleLedger, trained: np.ndarray, epoch: int) -> None:
        """Note those that came back in this epoch, then set the pauses of those that were trained."""
        known = is_known(ledger, slice(0, len(ledger)), self.confidence_threshold)
        if self._left is not None:
            self._note(ledger, trained, known, epoch)
        super().observe(ledger, trained, epoch)
        assert self._interval is not None
        assert self._rest is not None
        now = {"epoch": np.full(len(ledger), epoch), "interval": self._interval * known, "pause": self._rest + 1}
        before = self._left or now
        self._left = {name: np.where(trained, now[name], before[name]) for name in now}

    def _note(self, ledger: SampleLedger, trained: np.ndarray, known: np.ndarray, epoch: int) -> None:
        assert self._left is not None
        back = trained & (self._left["epoch"] + self._left["pause"] == epoch) & (self._left["interval"] > 1)
        loss, correct = ledger.loss.numpy(), ledger.correct.numpy()
        for interval, pause in set(zip(self._left["interval"][back], self._left["pause"][back], strict=True)):
            these = back & (self._left["interval"] == interval) & (self._left["pause"] == pause)
            _RETURNED[int(interval), int(pause)].append(
                Returned(int(these.sum()), int(known[these].sum()), int(correct[these].sum()), float(loss[these].sum()))
            )


def measure(task: str, seeds: int) -> str:
    """Train, and put what came back into a table."""
    _RETURNED.clear()
    learned = find_tasks([task])[0]
    method = Method("watched", {"hiding_policy": "watched_spaced_repetition"})
    hidden = []
    for seed in range(seeds):
        record = train(learned, method, seed, settings_of(learned, method))
        hidden.append(1 - record.backpropagated / record.full_samples)
    rows = []
    for (interval, pause), noted in sorted(_RETURNED.items()):
        samples, known, correct, loss = (sum(column) for column in zip(*noted, strict=True))
        figures = [f"{known / samples:.1%}", f"{correct / samples:.1%}", f"{loss / samples:.3f}"]
        rows.append([str(interval), str(pause - 1), f"{samples:,}", *figures])
    header = ["interval", "epochs of rest", "came back", "known", "correct", "mean loss"]
    return f"`{task}`, {seeds} seeds, {np.mean(hidden):.0%} hidden:\n\n{table(header, rows)}\n"


def main() -> None:
    """Read the arguments, measure, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=TASKS, metavar="TASK")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="A smoke test.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for task in options.tasks:
        print(measure(task, 1 if options.quick else options.seeds), flush=True)


if __name__ == "__main__":
    main()
