"""What a model returned: its loss, its predictions, and why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .base import describe

SPAN_LABELS = ("start_positions", "end_positions")

# What models call predictions, and what they call the tensors that are none.
_PREDICTIONS = ("logit", "pred")
_NO_PREDICTIONS = ("loss", "hidden", "attention", "embed", "pooler", "state", "past_key", "mask")


def asks_for_spans(inputs: Mapping[str, Any]) -> bool:
    """Whether the labels of a batch are starts and ends, as in extractive question answering."""
    return all(inputs.get(name) is not None for name in SPAN_LABELS)


def find_logits(outputs: Any, labels: Any, spans: bool = False) -> Tensor | None:
    """The logits among what a model returned; of the start and the end of a span, stacked to (B, 2, T).

    Args:
        outputs: what it returned. In a mapping without `"logits"`, they are the only tensor of predictions.
        labels: of the batch.
        spans: whether they are starts and ends.
    """
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, (tuple, list)):
        # A tuple holds (loss, logits, ...), or (logits, ...) where the loss is computed outside the model.
        found = [item for item in outputs if isinstance(item, Tensor) and item.ndim > 0]
        return torch.stack(found[:2], dim=1) if spans and len(found) > 1 else next(iter(found), None)
    start, end = _entry(outputs, "start_logits"), _entry(outputs, "end_logits")
    if spans and start is not None and end is not None:
        return torch.stack([start, end], dim=1)
    logits = _entry(outputs, "logits")
    return logits if logits is not None else _only_prediction(outputs, labels)


def predictions_of(outputs: Any, num_samples: int) -> dict[str, Tensor]:
    """The tensors among what a model returned that may be predictions of a batch, by their names or places.

    Args:
        outputs: a mapping or a tuple; of anything else there are none.
        num_samples: B, the length of their first dimension.
    """
    if not isinstance(outputs, (Mapping, tuple, list)):
        return {}
    entries = outputs.items() if isinstance(outputs, Mapping) else enumerate(outputs)
    tensors = {str(name): entry for name, entry in entries if isinstance(entry, Tensor) and entry.is_floating_point()}
    return {
        name: entry
        for name, entry in tensors.items()
        if entry.ndim > 0
        and len(entry) == num_samples
        and (_is_named_one(name) or not any(word in name for word in _NO_PREDICTIONS))
    }


def _only_prediction(outputs: Any, labels: Any) -> Tensor | None:
    """The one tensor of predictions in a mapping without logits; of several, the one whose name says so."""
    found = _candidates(outputs, labels)
    named = [entry for name, entry in found.items() if _is_named_one(name)]
    several = named if len(found) > 1 else list(found.values())
    return several[0] if len(several) == 1 else None


def _candidates(outputs: Any, labels: Any) -> dict[str, Tensor]:
    if not isinstance(outputs, Mapping) or not isinstance(labels, Tensor) or labels.ndim == 0:
        return {}
    return predictions_of(outputs, len(labels))


def _is_named_one(name: str) -> bool:
    return any(word in name for word in _PREDICTIONS)


def find_loss(outputs: Any) -> Tensor | None:
    """The loss among what a model returned, if there is one."""
    if isinstance(outputs, Tensor):
        return None
    if isinstance(outputs, (tuple, list)):
        first = outputs[0] if outputs else None
        return first if isinstance(first, Tensor) and first.numel() == 1 else None
    return _entry(outputs, "loss")


def likely_cause(outputs: Any, labels: Any, fused: bool) -> str:
    """Why no rule fits, a sentence for the end of the error, or nothing.

    Args:
        outputs: what the model returned.
        labels: of the batch.
        fused: whether the model computes a fused loss, without logits.
    """
    logits = find_logits(outputs, labels)
    if logits is None and fused:
        return "\nThere are no logits among it: a fused loss computes none. Turn it off (`use_liger_kernel=False`)."
    if logits is None:
        return _no_predictions(outputs, labels)
    if isinstance(labels, Tensor) and logits.ndim == 3 and labels.ndim == 2 and logits.shape[1] != labels.shape[1]:
        return (
            f"\nThe logits have {logits.shape[1]} places and the labels {labels.shape[1]}: the model adds or leaves "
            "out tokens (prompt tuning, `logits_to_keep`), and a `statistics_fn` has to say which belong together."
        )
    return ""


def _no_predictions(outputs: Any, labels: Any) -> str:
    several = _candidates(outputs, labels)
    if several:
        return (
            f"\nIt has no `logits`, and of {describe(several)} nothing says which are the predictions: the model may "
            "return them as `logits`."
        )
    return (
        "\nThere are no predictions among it (`logits`, or one tensor with a row for each sample beside the loss): the "
        "loss of a batch alone does not say how well each of its samples is known."
    )


def _entry(outputs: Any, name: str) -> Tensor | None:
    entry = outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
    return entry if isinstance(entry, Tensor) else None
