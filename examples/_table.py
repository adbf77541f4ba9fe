"""What the trainings of an example came to, and the table that ends it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_CELL = 18


class Score(NamedTuple):
    """The figure by which the trainings of an example are compared.

    Attributes:
        title: what the table calls it.
        metric: its name in the metrics of `Trainer.evaluate`.
        percent: shown as a percentage: the figure is a share in [0, 1].
        lower_is_better: as of errors; the table says so.
        compute: makes it of the other metrics, where evaluation itself does not, as a perplexity of `eval_loss`.
    """

    title: str
    metric: str
    percent: bool = True
    lower_is_better: bool = False
    compute: Callable[[Mapping[str, float]], float] | None = None

    def row(self, values: Sequence[float | None]) -> list[str]:
        """The row of the table."""
        title = f"{self.title} (lower is better)" if self.lower_is_better else self.title
        return [title, *("-" if value is None else self._shown(value) for value in values)]

    def _shown(self, value: float) -> str:
        return f"{value:.2%}" if self.percent else f"{value:,.4g}"


ACCURACY = Score("accuracy", "eval_accuracy")


@dataclass
class Outcome:
    """What one training came to.

    Attributes:
        title: with or without hiding.
        score: the value of the example's `Score`, or None if it was not evaluated.
        backpropagated: samples that were trained on.
        without_hiding: samples that the same epochs train on when nothing is hidden.
        forward_only: samples that were only looked at.
        seconds: wall time of the training.
        time_saved: seconds that hiding saved by the trainer's own estimate.
    """

    title: str
    score: float | None
    backpropagated: int
    without_hiding: int
    forward_only: int
    seconds: float
    time_saved: float


def format_table(outcomes: Sequence[Outcome], score: Score = ACCURACY) -> str:
    """The outcomes of one training, or of two, side by side, and a line that says what was saved."""
    rows = [
        ["", *(outcome.title for outcome in outcomes)],
        score.row([outcome.score for outcome in outcomes]),
        ["samples backpropagated", *(f"{outcome.backpropagated:,}" for outcome in outcomes)],
        ["samples forward-only", *(f"{outcome.forward_only:,}" for outcome in outcomes)],
        ["wall time", *(f"{outcome.seconds:.1f} s" for outcome in outcomes)],
    ]
    width = max(len(row[0]) for row in rows) + 2
    lines = [f"{row[0]:<{width}}" + "".join(f"{cell:>{_CELL}}" for cell in row[1:]) for row in rows]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:], rule, _saved(outcomes)])


def _saved(outcomes: Sequence[Outcome]) -> str:
    first, last = outcomes[0], outcomes[-1]
    if first is last:
        seconds, origin = first.time_saved, " (estimated)"
    else:
        seconds, origin = last.seconds - first.seconds, f" of {last.seconds:.1f} s"
    left_out = 1 - first.backpropagated / max(last.without_hiding, 1)
    time = f"{seconds:.1f} s saved" if seconds >= 0 else f"but {-seconds:.1f} s lost"
    return f"{left_out:.1%} fewer samples backpropagated, {time}{origin}."
