"""A training in four lines, for those who watch it; and in a line for a progress bar."""

from __future__ import annotations

from .epochs import Savings, epochs_of, savings_of
from .runs import TrainedRun


def summary_of(run: TrainedRun) -> str:
    """Four lines at the end of a training: what was hidden, what was trained on, what it saved, how to see more.

    Args:
        run: the training; its `source` is the folder that the last line names.
    """
    epochs = epochs_of(run.log)
    savings = savings_of(run, epochs)
    fractions = [epoch.hidden_fraction for epoch in epochs] or [0.0]
    return "\n".join(
        [
            f"Hidden: {sum(fractions) / len(fractions):.1%} of the samples in an epoch on average, at most "
            f"{max(fractions):.1%}.",
            f"Trained on: {savings.trained_samples:,} samples in the place of {savings.full_samples:,} "
            f"({savings.samples_fraction:.1%} saved); {savings.refreshed_samples:,} measured by a forward pass.",
            _time(savings),
            f"See what was hidden: hf-kakurenbo report {run.source}",
        ]
    )


def _time(savings: Savings) -> str:
    fraction = "" if savings.seconds_fraction is None else f" ({abs(savings.seconds_fraction):.1%} of the time)"
    if savings.seconds < 0:
        return f"Time: {-savings.seconds:,.1f} s more than with nothing hidden, estimated{fraction}."
    return f"Time: {savings.seconds:,.1f} s saved, estimated{fraction}."
