"""The section of a model card that says how its training hid samples, so that it can be repeated."""

from __future__ import annotations

from typing import Any

from .._version import __version__
from .epochs import epochs_of, savings_of
from .runs import TrainedRun

_TITLE = "### Hidden samples"


def section_of(run: TrainedRun) -> str:
    """Markdown: policy, options, what was hidden in each epoch, what was trained on.

    Args:
        run: the training.
    """
    epochs = epochs_of(run.log)
    savings = savings_of(run, epochs)
    rows = [
        f"| {epoch.number} | {epoch.hidden_fraction:.4f} | {epoch.visible_samples:.0f} | {epoch.lr_scale:.4f} |"
        for epoch in epochs
    ]
    options = [f"- {name}: {_shown(value)}" for name, value in run.options.items()]
    return "\n".join(
        [
            _TITLE,
            "",
            f"Trained with [hf_kakurenbo](https://arxiv.org/abs/2310.10102) {__version__}, which hides in each epoch "
            "the samples that the model already knows.",
            "",
            *options,
            "",
            f"It trained on {savings.trained_samples:,} samples in the place of {savings.full_samples:,}, and measured "
            f"{savings.refreshed_samples:,} hidden ones by a forward pass.",
            "",
            "| epoch | fraction hidden | samples trained on | learning rate × |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def with_section(card: str, section: str) -> str:
    """A model card with the section before its last part, the versions of the framework, or at its end."""
    before, framework, after = card.partition("### Framework versions")
    return f"{before.rstrip()}\n\n{section}\n{framework}{after}"


def _shown(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) else str(value)
