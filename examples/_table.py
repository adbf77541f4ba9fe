"""What the trainings of an example came to, and the table that ends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, NamedTuple

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_CELL = 18


class Score(NamedTuple):
    """The figure by which the trainings of an example are compared.

    Attributes:
        title: what the table calls it.
        metric: its name in the metrics of `Trainer.evaluate`.
        percent: shown as a percentage: the figure is a fraction in [0, 1].
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
EXACT_MATCH = Score("exact match", "eval_exact_match")


@dataclass
class Outcome:
    """What one training came to.

    Attributes:
        title: with or without hiding.
        score: the value of the example's `Score`, or None if it was not evaluated.
        backpropagated: samples that were trained on.
        without_hiding: samples that the same epochs train on when nothing is hidden.
        forward_only: samples of forward-only passes.
        seconds: wall time of the training.
        spread: of the epochs' times per step, as `Pace` has it.
    """

    title: str
    score: float | None
    backpropagated: int
    without_hiding: int
    forward_only: int
    seconds: float
    spread: float | None

    @property
    def time(self) -> str:
        """The wall time with its noise: by how much the speed of the machine varied while it trained."""
        return f"{self.seconds:.1f} s ± " + ("?" if self.spread is None else f"{self.spread:.0%}")


class Pace(TrainerCallback):
    """Takes the time per step of each epoch."""

    def __init__(self) -> None:
        self._epochs: list[float] = []

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note when the epoch begins."""
        self._begun = self._ended = time.perf_counter()
        self._steps_before = state.global_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note when the last step ended: what comes at the end of an epoch is no step."""
        self._ended = time.perf_counter()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the mean time of the epoch's steps."""
        steps = state.global_step - self._steps_before
        if steps:
            self._epochs.append((self._ended - self._begun) / steps)

    @property
    def spread(self) -> float | None:
        """The standard deviation of the epochs' times per step, as a fraction of their mean; None for one epoch."""
        return stdev(self._epochs) / fmean(self._epochs) if len(self._epochs) > 1 else None


def format_table(outcomes: Sequence[Outcome], score: Score = ACCURACY) -> str:
    """The outcomes of one training, or of two, side by side, and below what was left out and how to read the times."""
    rows = [
        ["", *(outcome.title for outcome in outcomes)],
        score.row([outcome.score for outcome in outcomes]),
        ["samples backpropagated", *(f"{outcome.backpropagated:,}" for outcome in outcomes)],
        ["samples forward-only", *(f"{outcome.forward_only:,}" for outcome in outcomes)],
        ["wall time", *(outcome.time for outcome in outcomes)],
    ]
    width = max(len(row[0]) for row in rows) + 2
    lines = [f"{row[0]:<{width}}" + "".join(f"{cell:>{_CELL}}" for cell in row[1:]) for row in rows]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:], rule, _left_out(outcomes[0], outcomes[-1]), HOW_TIMES_COMPARE])


HOW_TIMES_COMPARE = "± is the spread of the epochs' times per step; closer wall times are the same."


def _left_out(first: Outcome, last: Outcome) -> str:
    """What hiding left out, in samples; seconds of single runs are the machine's as much as the method's."""
    full = max(last.without_hiding, 1)
    trained, passed = first.backpropagated / full, (first.backpropagated + first.forward_only) / full
    return f"{1 - trained:.1%} fewer samples backpropagated, {1 - passed:.1%} fewer forward passes."
