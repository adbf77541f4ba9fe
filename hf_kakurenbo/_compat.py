"""What differs between the supported releases of the packages underneath. Each entry: its cause, when it may go."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from packaging.version import Version

if TYPE_CHECKING:
    from torch import nn

TRANSFORMERS_MINIMUM, TRANSFORMERS_BELOW = "5.4", "6"


def require_supported_transformers(installed: str | None = None) -> None:
    """Refuse a release of transformers on whose Trainer this package was not tested.

    Args:
        installed: the version; that of the installed package by default.

    Raises:
        ImportError: it is outside the supported range.
    """
    installed = installed or version("transformers")
    # A pre-release of the first unsupported release counts as it, though it comes before it.
    release = Version(Version(installed).base_version)
    if Version(installed) < Version(TRANSFORMERS_MINIMUM) or release >= Version(TRANSFORMERS_BELOW):
        raise ImportError(
            f"hf_kakurenbo works with transformers >={TRANSFORMERS_MINIMUM},<{TRANSFORMERS_BELOW}; version {installed} "
            f'is installed. Run: pip install "transformers>={TRANSFORMERS_MINIMUM},<{TRANSFORMERS_BELOW}"'
        )


def num_train_samples_argument(trainer: Any, samples_trained: int) -> float:
    """The `num_train_samples` with which `Trainer._finalize_training` reports the throughput of `samples_trained`.

    Since 5.19 it is scaled by the fraction of the steps run in this call; before, it was taken as it is. May go when
    the oldest supported release is 5.19.
    """
    if not hasattr(trainer, "_initial_global_step"):
        return samples_trained
    steps = trainer.state.global_step - trainer._initial_global_step
    return samples_trained * trainer.state.max_steps / max(steps, 1)


def load_renamed_weights(model: nn.Module, checkpoint: str) -> Any:
    """Load the weights of a checkpoint whose names in the file are not the names in the model.

    `save_pretrained` writes the weights of some models (ViT is one) under the names that they have on the hub, and
    `from_pretrained` translates them back. Trainer's resume and its `load_best_model_at_end` do not, and continue with
    the weights that the model happens to have (ViT: in 5.23, not in 5.4). May go when Trainer translates the names.

    Args:
        model: a `PreTrainedModel`, which gets the weights.
        checkpoint: the folder.

    Returns:
        What `load_state_dict` returned.
    """
    saved = type(model).from_pretrained(checkpoint)  # type: ignore[attr-defined]
    return model.load_state_dict(saved.state_dict(), strict=False)
