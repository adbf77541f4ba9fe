"""Statistics of TRL's preference training, from what its trainers compute in the one pass that they make anyway.

A sample is what the dataset holds: a pair of completions, or for KTO one completion with its label. Each place that
knows how TRL computes something says what it relies on. Tests compare them with TRL's own loss of a single sample,
`LibraryLossCheck` the first batches of every training.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data import BatchIds
from ..hiding.statistics import SampleStatistics, preference_statistics, token_statistics
from .base import Call, LibraryLossCheck, Observation, calls_of, returned_by
from .trl_dpo import Pairs, completion_log_probabilities, pair_losses, score

_Batch = Mapping[str, Any]


class Preferences(NamedTuple):
    """What a batch of preferences says."""

    losses: Tensor
    """(B,), of each sample."""
    margins: Tensor
    """(B,), what stands inside the sigmoid of the loss: by how much the right side is preferred."""
    expected: Tensor
    """Scalar, the loss of the batch as the trainer computes it from these."""


class PreferenceObservation(Observation):
    """What was seen of a batch of preferences.

    Args:
        returned: what the trained model returned, in each of its passes.
        place: which of them is over the batch itself.
        measure: from the batch and what the model returned for it to what it says.
        check: compares the trainer's loss with the expected one; None where that is not known.
    """

    def __init__(
        self,
        returned: Sequence[Any],
        place: int,
        measure: Callable[[_Batch, Any], Preferences],
        check: LibraryLossCheck | None,
    ) -> None:
        super().__init__(returned, place)
        self._measure, self._check = measure, check

    @torch.no_grad()
    def statistics(
        self, batch: _Batch, ids: BatchIds, accuracy_threshold: float, loss: Tensor
    ) -> SampleStatistics | None:
        """As [`Observation.statistics`].

        Raises:
            ValueError: the trainer computed another loss than the one that is recorded.
        """
        losses, margins, expected = self._measure(batch, self.outputs)
        if self._check is not None:
            self._check(loss, expected)
        return preference_statistics(losses, margins)


class PreferenceObserver(ABC):
    """Watches a trainer compute the loss of batches of preferences.

    Args:
        trainer: the trainer.
        version: TRL's.
    """

    def __init__(self, trainer: Any, version: str) -> None:
        self.trainer = trainer
        # The load-balancing loss of a mixture of experts is of the batch; it is added to what the pairs make.
        balanced = getattr(trainer, "aux_loss_enabled", False)
        self.check = None if balanced else LibraryLossCheck(type(trainer).__name__, f"TRL {version}")

    @abstractmethod
    def __call__(self, model: nn.Module) -> AbstractContextManager[Observation]:
        """The context around `compute_loss` of a batch, which is handed this model."""


class DpoObserver(PreferenceObserver):
    """For `DPOTrainer`."""

    @contextmanager
    def __call__(self, model: nn.Module) -> Iterator[Observation]:
        """As [`PreferenceObserver`]."""
        with _policy_and_reference(self.trainer, model) as (policy, reference):
            # The policy's pass comes before the reference's.
            yield PreferenceObservation(policy, 0, partial(self._preferences, reference), self.check)

    def _preferences(self, reference: list[Any], batch: _Batch, outputs: Any) -> Preferences:
        trainer, mask = self.trainer, batch["completion_mask"][:, 1:]
        # Prompt learning puts tokens before those of the batch.
        by_token = outputs.log_probs[:, -mask.shape[1] :].float()
        ratios = completion_log_probabilities(by_token, mask, trainer.ld_alpha)
        if trainer.precompute_ref_logps:
            ratios = ratios - torch.cat([batch["ref_chosen_logps"], batch["ref_rejected_logps"]])
        else:
            of_reference = reference[-1].log_probs[:, -mask.shape[1] :].float()
            ratios = ratios - completion_log_probabilities(of_reference, mask, trainer.ld_alpha)
        scores = score(ratios, trainer.f_divergence_type, trainer.f_alpha_divergence_coef)
        predicted, nll = mask.chunk(2)[0].sum(dim=1), -by_token.chunk(2)[0].sum(dim=1)
        (chosen, rejected), (chosen_score, rejected_score) = ratios.chunk(2), scores.chunk(2)
        chosen_tokens, rejected_tokens = batch["completion_mask"].sum(dim=1).chunk(2)
        pairs = Pairs(
            chosen,
            rejected,
            chosen_score,
            rejected_score,
            chosen_tokens,
            rejected_tokens,
            nll / predicted.clamp(min=1),
            beta=trainer.beta,
            label_smoothing=trainer.label_smoothing,
            tau=trainer.args.discopop_tau,
        )
        weights = self._weights(outputs, by_token, mask)
        # The batch's cross entropy is a mean over its tokens, in which long completions count more.
        of_batch = pairs._replace(nll=(nll.sum() / predicted.sum()).expand_as(nll))
        return Preferences(
            pair_losses(trainer, pairs, weights),
            trainer.beta * (chosen - rejected),
            pair_losses(trainer, of_batch, weights).mean(),
        )

    def _weights(self, outputs: Any, by_token: Tensor, mask: Tensor) -> Tensor | float:
        """The weight of each pair in WPO (arXiv 2406.11827): how probable both its completions are, by token."""
        if not self.trainer.use_weighting:
            return 1.0
        aligned = (by_token - outputs.log_sum_sq_probs[:, -mask.shape[1] :].float()) * mask
        return (aligned.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).exp().reshape(2, -1).prod(dim=0)


class KtoObserver(PreferenceObserver):
    """For `KTOTrainer`.

    The reference point, an estimate of the divergence from the reference over the mismatched completions of the batch,
    is not a sample's own, but one number for the whole model; each sample is recorded with the one it was trained with.
    """

    @contextmanager
    def __call__(self, model: nn.Module) -> Iterator[Observation]:
        """As [`PreferenceObserver`]."""
        place = int(self.trainer.calculate_KL)  # the pass over the mismatched completions comes first
        with _policy_and_reference(self.trainer, model) as (policy, reference):
            yield PreferenceObservation(policy, place, partial(self._preferences, reference), self.check)

    def _preferences(self, reference: list[Any], batch: _Batch, outputs: Any) -> Preferences:
        trainer, width = self.trainer, batch["input_ids"].shape[1] - 1
        ratios = outputs.log_probs[:, -width:].float().sum(dim=1)
        if trainer.precompute_ref_logps:
            ratios = ratios - batch["ref_logps"]
        else:
            ratios = ratios - reference[-1].log_probs[:, -width:].float().sum(dim=1)
        desirable = batch["label"].bool()
        # Gathered over all ranks, and read from the device, for the log.
        reference_point = trainer._metrics["train" if trainer.model.training else "eval"]["kl"][-1]
        margins = trainer.beta * torch.where(desirable, ratios - reference_point, reference_point - ratios)
        weights = torch.where(desirable, trainer.desirable_weight, trainer.undesirable_weight)
        losses = weights * torch.sigmoid(-margins)
        return Preferences(losses, margins, losses.nanmean())


class RewardObserver(PreferenceObserver):
    """For `RewardTrainer`."""

    @contextmanager
    def __call__(self, model: nn.Module) -> Iterator[Observation]:
        """As [`PreferenceObserver`]."""
        with returned_by(model) as returned:
            yield PreferenceObservation(returned, -1, self._preferences, self.check)

    def _preferences(self, batch: _Batch, outputs: Any) -> Preferences:
        chosen, rejected = outputs.logits.float().squeeze(-1).chunk(2)  # the chosen ones come before the rejected ones
        losses = -functional.logsigmoid(chosen - rejected - batch.get("margin", 0.0))
        centring = self.trainer.args.center_rewards_coefficient
        if centring is not None:
            losses = losses + centring * (chosen + rejected).square()
        return Preferences(losses, chosen - rejected, losses.mean())


class CpoObserver(PreferenceObserver):
    """For `CPOTrainer`, SimPO with it."""

    @contextmanager
    def __call__(self, model: nn.Module) -> Iterator[Observation]:
        """As [`PreferenceObserver`]."""
        # The loss of each example and the rewards are what this method returns.
        with returned_by(model) as returned, calls_of(self.trainer, "cpo_loss") as calls:
            yield PreferenceObservation(returned, -1, partial(self._preferences, calls), self.check)

    def _preferences(self, calls: list[Call], batch: _Batch, outputs: Any) -> Preferences:
        losses, chosen_rewards, rejected_rewards = (each.float() for each in calls[-1].returned)
        margins = chosen_rewards - rejected_rewards
        alpha = self.trainer.cpo_alpha
        if alpha == 0:
            return Preferences(losses, margins, losses.mean())
        nll, of_batch = _cross_entropy(outputs.logits, batch["chosen_labels"], not self.trainer.is_encoder_decoder)
        return Preferences(losses + alpha * nll, margins, losses.mean() + alpha * of_batch)


class OrpoObserver(PreferenceObserver):
    """For `ORPOTrainer`."""

    @contextmanager
    def __call__(self, model: nn.Module) -> Iterator[Observation]:
        """As [`PreferenceObserver`]."""
        # It takes the log probabilities of both completions and returns what is subtracted from the cross entropy.
        with returned_by(model) as returned, calls_of(self.trainer, "odds_ratio_loss") as calls:
            yield PreferenceObservation(returned, -1, partial(self._preferences, calls), self.check)

    def _preferences(self, calls: list[Call], batch: _Batch, outputs: Any) -> Preferences:
        subtracted = calls[-1].returned[0].float()
        chosen_odds, rejected_odds = (_log_odds(each.float()) for each in calls[-1].args[:2])
        labels = batch["chosen_labels"]
        if not self.trainer.is_encoder_decoder:  # over the prompt and the completion
            labels = batch["chosen_input_ids"].masked_fill(batch["chosen_attention_mask"] != 1, -100)
        nll, of_batch = _cross_entropy(outputs.logits, labels, not self.trainer.is_encoder_decoder)
        return Preferences(nll - subtracted, chosen_odds - rejected_odds, of_batch - subtracted.mean())


@contextmanager
def _policy_and_reference(trainer: Any, model: nn.Module) -> Iterator[tuple[list[Any], list[Any]]]:
    """What both models return inside; where the reference is the policy without its adapter, both lists are one.

    The policy is called through whatever it is wrapped in, the reference as the trainer keeps it.
    """
    reference = trainer.ref_model if trainer.ref_model is not None else trainer.model
    with ExitStack() as stack:
        of_policy = stack.enter_context(returned_by(model))
        of_reference = of_policy if reference is model else stack.enter_context(returned_by(reference))
        yield of_policy, of_reference


def _log_odds(log_probabilities: Tensor) -> Tensor:
    return log_probabilities - torch.log(-torch.expm1(log_probabilities))


def _cross_entropy(logits: Tensor, labels: Tensor, shift: bool) -> tuple[Tensor, Tensor]:
    """Of the chosen completions: the mean over the tokens of each, (B,), and over those of all.

    Args:
        logits: (2B, T, V), the chosen ones first, padded to the longest of all.
        labels: (B, up to T), of the chosen ones, −100 where masked.
        shift: whether a token predicts the next one.
    """
    labels = functional.pad(labels, (0, logits.shape[1] - labels.shape[1]), value=-100)
    each = token_statistics(logits[: len(labels)], labels, shift=shift).loss
    tokens = (labels[:, int(shift) :] != -100).sum(dim=1)
    return each, (each.nan_to_num() * tokens).sum() / tokens.sum()
