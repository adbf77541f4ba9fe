"""The losses of direct preference optimisation, pair by pair, by the names that TRL's `loss_type` has for them.

TRL (1.16) computes them in one long method and takes their mean there, so they are computed once more from the log
probabilities that its models returned: a few numbers for each pair.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


class Pairs(NamedTuple):
    """What the losses of a batch of pairs are made of; each tensor (B,) but where it says otherwise."""

    chosen: Tensor
    """Log probability of the chosen completion, less the reference's."""
    rejected: Tensor
    """The same of the rejected one."""
    chosen_score: Tensor
    """What `chosen` is under the f-divergence that is optimised: itself for the usual reverse KL."""
    rejected_score: Tensor
    chosen_tokens: Tensor
    """How many tokens the completion has."""
    rejected_tokens: Tensor
    nll: Tensor
    """Cross entropy of the chosen completion, mean over its tokens."""
    beta: float
    label_smoothing: float
    tau: float

    @property
    def margin(self) -> Tensor:
        """β times by how much the chosen score is ahead of the rejected one."""
        return self.beta * (self.chosen_score - self.rejected_score)

    @property
    def margin_by_token(self) -> Tensor:
        """The difference of the scores, each divided by the tokens of its completion; without β."""
        chosen = self.chosen_score / self.chosen_tokens.clamp(min=1)
        return chosen - self.rejected_score / self.rejected_tokens.clamp(min=1)


def _exo_pair(pairs: Pairs) -> Tensor:
    right, wrong = logsigmoid(pairs.margin), logsigmoid(-pairs.margin)
    smoothing = pairs.label_smoothing
    return right.exp() * (right - math.log1p(-smoothing)) + wrong.exp() * (wrong - math.log(smoothing))


def _robust(pairs: Pairs) -> Tensor:
    right, wrong = logsigmoid(pairs.margin), logsigmoid(-pairs.margin)
    return (pairs.label_smoothing * wrong - (1 - pairs.label_smoothing) * right) / (1 - 2 * pairs.label_smoothing)


def _nca_pair(pairs: Pairs) -> Tensor:
    chosen, rejected = pairs.beta * pairs.chosen, pairs.beta * pairs.rejected
    return -logsigmoid(chosen) - (logsigmoid(-chosen) + logsigmoid(-rejected)) / 2


def _sppo_hard(pairs: Pairs) -> Tensor:
    goal = 0.5 / pairs.beta
    return (pairs.chosen - goal).square() + (pairs.rejected + goal).square()


def _apo_zero(pairs: Pairs) -> Tensor:
    return torch.sigmoid(-pairs.beta * pairs.chosen) + torch.sigmoid(pairs.beta * pairs.rejected)


def _apo_down(pairs: Pairs) -> Tensor:
    ahead = pairs.beta * (pairs.chosen - pairs.rejected)
    return torch.sigmoid(pairs.beta * pairs.chosen) + torch.sigmoid(-ahead)


def _discopop(pairs: Pairs) -> Tensor:
    blend = torch.sigmoid(pairs.margin / pairs.tau)
    return -logsigmoid(pairs.margin) * (1 - blend) + (-pairs.margin).exp() * blend


# Left out are aot and aot_unpaired: they sort the log ratios of a batch, so that no pair has a loss of its own.
LOSSES: Mapping[str, Callable[[Pairs], Tensor]] = {
    "sigmoid": lambda pairs: -logsigmoid(pairs.margin),
    "sigmoid_norm": lambda pairs: -logsigmoid(pairs.beta * pairs.margin_by_token),
    "hinge": lambda pairs: (1 - pairs.margin).relu(),
    "ipo": lambda pairs: (pairs.margin_by_token - 0.5 / pairs.beta).square(),
    "exo_pair": _exo_pair,
    "nca_pair": _nca_pair,
    "robust": _robust,
    "bco_pair": lambda pairs: -logsigmoid(pairs.beta * pairs.chosen) - logsigmoid(-pairs.beta * pairs.rejected),
    "sppo_hard": _sppo_hard,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
    "discopop": _discopop,
    "sft": lambda pairs: pairs.nll,
}
"""From a batch of pairs to the loss of each, (B,)."""


def score(log_ratios: Tensor, divergence: str, alpha: float) -> Tensor:
    """The derivative of an f-divergence at the ratio of policy and reference, up to a constant.

    Args:
        log_ratios: (B,).
        divergence: TRL's `f_divergence_type`.
        alpha: the coefficient of the alpha-divergence.
    """
    if divergence == "forward_kl":
        return 1 - (-log_ratios).exp()
    if divergence == "js_divergence":
        return math.log(2) + logsigmoid(log_ratios)
    if divergence == "alpha_divergence" and abs(alpha - 1) >= 1e-6:
        return ((alpha - 1) * log_ratios).clamp(max=80).expm1() / (alpha - 1)
    return log_ratios


def completion_log_probabilities(log_probs: Tensor, mask: Tensor, tail_weight: float | None) -> Tensor:
    """The log probability of each completion, (2B,), the B chosen ones before the B rejected ones.

    Args:
        log_probs: (2B, T) of each token, 0 outside the completions.
        mask: (2B, T), 1 for the tokens of a completion.
        tail_weight: how much the tokens count by which a completion is longer than the other of its pair (LD-DPO); None
            for as much as the others.
    """
    if tail_weight is None:
        return log_probs.sum(dim=1)
    shared = mask.sum(dim=1).reshape(2, -1).amin(dim=0).repeat(2).unsqueeze(1)
    weights = torch.where(mask.cumsum(dim=1) <= shared, 1.0, tail_weight)
    return (log_probs * mask * weights).sum(dim=1)


def pair_losses(trainer: Any, pairs: Pairs, weights: Tensor | float) -> Tensor:
    """The loss of each pair, (B,), as the trainer's `loss_type` and `loss_weights` mix it.

    Args:
        trainer: TRL's `DPOTrainer`.
        pairs: the batch.
        weights: (B,), by which each component is multiplied (WPO); or 1.
    """
    components = zip(trainer.loss_types, trainer.loss_weights, strict=True)
    return sum((LOSSES[name](pairs) * weights * fraction for name, fraction in components), torch.zeros_like(pairs.nll))
