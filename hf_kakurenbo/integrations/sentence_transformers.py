"""Sentence Transformers' trainers: which of their losses give each sample one of its own, and what watches these.

The losses return one number for a batch. What a sample's part of it is, is read where the loss hands predictions and
labels to a criterion of PyTorch's, or the embeddings to its last step; the model runs once, as it does without hiding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset, RandomSampler

from ..data import BatchIds
from ..hiding.statistics import (
    Prediction,
    SampleStatistics,
    multi_label_statistics,
    regression_statistics,
    single_label_statistics,
    soft_label_statistics,
)
from .base import Call, Integration, LibraryLossCheck, Observation, Observer, calls_of, returned_by

_LIBRARY = "sentence_transformers"

# Where the losses keep the criterion to which they hand one prediction and one label for each sample.
_CRITERIA: Mapping[str, str] = {
    "BinaryCrossEntropyLoss": "bce_with_logits_loss",
    "CosineSimilarityLoss": "loss_fct",
    "CrossEntropyLoss": "ce_loss",
    "MarginMSELoss": "loss_fct",
    "MSELoss": "loss_fct",  # of cross encoders; the other one hands on embeddings
    "SoftmaxLoss": "loss_fct",
}

# Losses that compare the samples of a batch with one another, or regularise the batch as one.
_OF_BATCHES = re.compile(
    "MultipleNegatives|InBatchNegatives|GIST|Batch(All|Hard|SemiHard)|MegaBatch|CoSENT|AnglE|OnlineContrastive|Splade|"
    "CSR|Flops|OrthogonalRegularization"
)

_OfEmbeddings: TypeAlias = Callable[[Any, Sequence[Tensor], Any], SampleStatistics]
"""From a loss, the embeddings of each column, (B, D), and the labels to the statistics."""

_Measure: TypeAlias = Callable[[Tensor], "SampleStatistics | Prediction"]

_LAST_STEP = "compute_loss_from_embeddings"


def _distances(loss: Any, a: Tensor, b: Tensor) -> Tensor:
    distances: Tensor = loss.distance_metric(a, b)
    return distances.float()


def _squared_errors(loss: Any, embeddings: Sequence[Tensor], labels: Sequence[Tensor]) -> SampleStatistics:
    projection = getattr(loss, "projection", None)
    predicted = [each if projection is None else projection(each) for each in embeddings]
    return regression_statistics(torch.cat(predicted, dim=1), torch.cat(list(labels), dim=1))


def _contrastive(loss: Any, embeddings: Sequence[Tensor], labels: Tensor) -> SampleStatistics:
    """Half the squared distance of a similar pair, or of how far a dissimilar one is within the margin."""
    distances, similar = _distances(loss, *embeddings), labels.reshape(-1).float()
    within = (loss.margin - distances).relu().square()
    losses = (similar * distances.square() + (1 - similar) * within) / 2
    return SampleStatistics(losses, (distances < loss.margin) == (similar > 0.5), torch.ones_like(losses))


def _triplet(loss: Any, embeddings: Sequence[Tensor], labels: Any) -> SampleStatistics:
    anchor, positive, negative = embeddings
    ahead = _distances(loss, anchor, negative) - _distances(loss, anchor, positive)
    losses = (loss.triplet_margin - ahead).relu()
    return SampleStatistics(losses, ahead > 0, torch.ones_like(losses))


_OF_EMBEDDINGS: Mapping[str, _OfEmbeddings] = {
    "ContrastiveLoss": _contrastive,
    "MSELoss": _squared_errors,
    "TripletLoss": _triplet,
}


class PassesObservation(Observation):
    """What was seen of a batch. The outputs are a list: a loss may run the model once for each column.

    Args:
        returned: what the model returned in each of its passes.
        measure: from the trainer's loss to the statistics; None where nothing is known of it.
    """

    def __init__(self, returned: list[Any], measure: _Measure | None = None) -> None:
        super().__init__(returned)
        self._measure = measure

    @property
    def outputs(self) -> Any:
        """As [`Observation.outputs`]."""
        return self._returned

    def statistics(
        self, batch: Mapping[str, Any], ids: BatchIds, accuracy_threshold: float, loss: Tensor
    ) -> SampleStatistics | Prediction | None:
        """As [`Observation.statistics`]."""
        return self._measure(loss) if self._measure else None


@contextmanager
def _observe_passes(model: nn.Module) -> Iterator[Observation]:
    with returned_by(model) as returned:
        yield PassesObservation(returned)


@contextmanager
def _observe_criterion(criterion: nn.Module, model: nn.Module) -> Iterator[Observation]:
    given: list[Any] = []
    handle = criterion.register_forward_pre_hook(lambda module, args: given.append(args))
    try:
        with returned_by(model) as returned:
            yield PassesObservation(returned, lambda loss: _prediction(type(criterion), *given[-1]))
    finally:
        handle.remove()


def _prediction(criterion: type[nn.Module], predictions: Tensor, labels: Tensor) -> Prediction:
    if criterion is nn.CrossEntropyLoss:
        soft = labels.is_floating_point()
        return Prediction(soft_label_statistics if soft else single_label_statistics, predictions, labels)
    rule = regression_statistics if criterion is nn.MSELoss else multi_label_statistics
    rows = len(predictions)
    return Prediction(rule, predictions.reshape(rows, -1), labels.reshape(rows, -1))


class EmbeddingObserver:
    """For losses whose last step is over embeddings.

    Args:
        loss: the loss.
        rule: from it, the embeddings and the labels to the statistics.
        trainer: the name of the trainer.
    """

    def __init__(self, loss: Any, rule: _OfEmbeddings, trainer: str) -> None:
        self._loss, self._rule = loss, rule
        self._check = LibraryLossCheck(trainer, f"Sentence Transformers {version(_LIBRARY)}")

    @contextmanager
    def __call__(self, model: nn.Module) -> Iterator[Observation]:
        """The context around `compute_loss`, which is handed this model."""
        with returned_by(model) as returned, calls_of(self._loss, _LAST_STEP) as calls:
            yield PassesObservation(returned, partial(self._measure, calls))

    @torch.no_grad()
    def _measure(self, calls: list[Call], loss: Tensor) -> SampleStatistics:
        measured = self._rule(self._loss, *calls[-1].args)
        losses = measured.loss
        self._check(loss, losses.mean() if getattr(self._loss, "size_average", True) else losses.sum())
        return measured


def refusal(trainer: Any, has_function: bool) -> str | None:
    """Why nothing can be hidden in one of Sentence Transformers' trainers; None if there is nothing against it.

    Args:
        trainer: the trainer.
        has_function: whether it was given a `statistics_fn`.
    """
    return _refusal_of_data(trainer) or _refusal_of_loss(getattr(trainer, "loss", None), has_function)


def make_observer(trainer: Any) -> Observer:
    """What watches the loss of one of Sentence Transformers' trainers."""
    criterion = _criterion_of(trainer.loss)
    if criterion is not None:
        return partial(_observe_criterion, criterion)
    rule = _rule_of(trainer.loss)
    return EmbeddingObserver(trainer.loss, rule, type(trainer).__name__) if rule else _observe_passes


def make_training_loader(trainer: Any) -> Any:
    """The training loader over the order that the trainer's own draws: from a generator with the seed of the training.

    Its own is made of batches drawn beforehand, so that nothing could be left out of them.
    """
    # It trains on every column, whatever the model's `forward` names.
    trainer._signature_columns = list(trainer.train_dataset.column_names)

    def shuffled(dataset: Any) -> RandomSampler:
        generator = torch.Generator()
        generator.manual_seed(trainer.args.seed)
        return RandomSampler(dataset, generator=generator)

    return trainer._get_dataloader(
        trainer.train_dataset, "Training", trainer._train_batch_size, shuffled, is_training=True
    )


def _refusal_of_data(trainer: Any) -> str | None:
    if isinstance(trainer.train_dataset, Mapping):
        return (
            "The training dataset is a dict of datasets, of which Sentence Transformers draws whole batches in turn, "
            "each with the loss of its dataset: nothing could be left out of a batch. Train on one dataset (join them "
            "with `datasets.concatenate_datasets`)."
        )
    if isinstance(trainer.train_dataset, IterableDataset):
        return (
            "The training dataset is a stream, whose columns Sentence Transformers all takes for texts, the ids of the "
            "samples too. Load it map-style (`streaming=False`)."
        )
    lineage = [base for base in type(trainer).__mro__ if not base.__module__.startswith("hf_kakurenbo.")]
    for method in ("get_batch_sampler", "_build_dataloader"):
        owner = next(base for base in lineage if method in vars(base))
        if owner.__module__.partition(".")[0] != _LIBRARY:
            return f"{owner.__name__}.{method} draws whole batches, so nothing could be left out of them."
    sampler = trainer.args.batch_sampler
    if getattr(sampler, "value", sampler) != "batch_sampler":
        return (
            f"batch_sampler={getattr(sampler, 'value', sampler)!r} draws whole batches, each by what else is in it, so "
            'nothing could be left out of them. Leave it at "batch_sampler".'
        )
    return None


def _refusal_of_loss(loss: Any, has_function: bool) -> str | None:
    if loss is None:  # not made yet
        return None
    of_batches = [type(module).__name__ for module in loss.modules() if any(map(_OF_BATCHES.search, _family(module)))]
    if of_batches:
        return (
            f"{of_batches[0]} compares the samples of a batch with one another (in-batch negatives, ranks, or a "
            "regularisation of the whole batch), so no sample has a loss of its own by which it could be ranked. "
            f"{', '.join(sorted({*_CRITERIA, *_OF_EMBEDDINGS}))} have one."
        )
    if has_function or _criterion_of(loss) is not None or _rule_of(loss) is not None:
        return None
    return (
        f"What the loss of a sample is under {type(loss).__name__} is not known here; it is for "
        f"{', '.join(sorted({*_CRITERIA, *_OF_EMBEDDINGS}))} with the criteria that they come with. A `statistics_fn` "
        "can say what it is: its `outputs` are a list of what the model returned in each of its passes."
    )


def _criterion_of(loss: nn.Module) -> nn.Module | None:
    """The criterion that is given one prediction and one label for each sample."""
    found = getattr(loss, _CRITERIA.get(_known_name(loss), ""), None)
    return found if type(found) in (nn.BCEWithLogitsLoss, nn.CrossEntropyLoss, nn.MSELoss) else None


def _rule_of(loss: nn.Module) -> _OfEmbeddings | None:
    """The rule over embeddings."""
    if not hasattr(loss, _LAST_STEP) or hasattr(loss, "loss_fct"):
        return None
    return _OF_EMBEDDINGS.get(_known_name(loss))


def _known_name(loss: nn.Module) -> str:
    """The name of the class of Sentence Transformers' that a loss is, or descends from."""
    return next(iter(_family(loss)), "")


def _family(module: nn.Module) -> list[str]:
    """The names of the classes of Sentence Transformers' that a module descends from, the nearest first."""
    return [base.__name__ for base in type(module).__mro__ if base.__module__.partition(".")[0] == _LIBRARY]


INTEGRATION = Integration(refusal, make_observer, make_training_loader, collected=("accum_loss_components",))
