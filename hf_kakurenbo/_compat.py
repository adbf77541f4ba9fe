"""What differs between the supported releases of the packages underneath. Each entry: its cause, when it may go."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from packaging.version import Version

TRANSFORMERS_MINIMUM, TRANSFORMERS_BELOW = "5.4", "6"


def require_supported_transformers(installed: str | None = None) -> None:
    """Refuse a release of transformers on whose Trainer this package was not tested.

    Args:
        installed: the version; that of the installed package by default.

    Raises:
        ImportError: it is outside the supported range.
    """
    installed = installed or version("transformers")
    if not Version(TRANSFORMERS_MINIMUM) <= Version(installed) < Version(TRANSFORMERS_BELOW):
        raise ImportError(
            f"hf_kakurenbo works with transformers >={TRANSFORMERS_MINIMUM},<{TRANSFORMERS_BELOW}; version {installed} "
            f'is installed. Run: pip install "transformers>={TRANSFORMERS_MINIMUM},<{TRANSFORMERS_BELOW}"'
        )


def num_train_samples_argument(trainer: Any, samples_trained: int) -> float:
    """The `num_train_samples` with which `Trainer._finalize_training` reports the throughput of `samples_trained`.

    Since 5.19 it is scaled by the share of the steps run in this call; before, it was taken as it is. May go when
    the oldest supported release is 5.19.
    """
    if not hasattr(trainer, "_initial_global_step"):
        return samples_trained
    steps = trainer.state.global_step - trainer._initial_global_step
    return samples_trained * trainer.state.max_steps / max(steps, 1)
