"""Statistics of samples that ask many questions: a class for each token, or for each pixel.

A batch of logits may be the largest tensor of a training, so it is read in pieces: of tokens, a few megabytes at a time
whatever its size; of pixels, one image at a time.

Shapes: B samples of T tokens in the batch, V classes (the vocabulary), R rows of logits.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from .base import IGNORE_INDEX, SampleStatistics, nothing_asked

ACCURACY_THRESHOLD = 0.9
"""The default fraction of right tokens, or pixels, from which on a sample counts as predicted correctly."""

# How many logits are reduced together. On a CPU a piece stays in the cache, twice as fast as a large one. A GPU wants
# enough work for each kernel, of which a piece takes three, in half precision four: 32 MB are the least, and no batch
# has more pieces than 128, which in half precision, with a copy in float32, take 3 % of the logits.
_PIECE_ON_CPU, _PIECE = 2**20, 2**23
_MOST_PIECES = 128


@torch.no_grad()
def token_statistics(
    logits: Tensor, labels: Tensor, *, accuracy_threshold: float = ACCURACY_THRESHOLD, shift: bool = False
) -> SampleStatistics:
    """Statistics of samples with a label for each token: token classification and language modelling of any kind.

    Args:
        logits: (B, T, V) floating point.
        labels: (B, T) integers in 0..V−1, or −100 for a masked token.
        accuracy_threshold: the fraction of right tokens, in [0, 1], from which on a sample is correct.
        shift: whether a label is predicted from the tokens before it, as in causal language modelling, so that the
            logits of a place belong to the label of the next one.

    Returns:
        Of each sample, over the tokens that are not masked: mean cross entropy; whether the fraction of tokens for
        which no class is more probable than the label reaches `accuracy_threshold`; mean of the largest softmax
        probability. A sample with every token masked was not asked anything: its loss is NaN, so it is never hidden,
        and it is not correct.
    """
    labels = shifted(labels) if shift else labels
    asked = is_class(labels, logits.shape[-1], IGNORE_INDEX)
    statistics = _statistics_by_row(logits.detach(), labels, asked)
    return _mean_over(statistics.sum(dim=2), asked.sum(dim=1), accuracy_threshold)


@torch.no_grad()
def flattened_token_statistics(
    logits: Tensor,
    labels: Tensor,
    sample_of_token: Tensor,
    num_samples: int,
    *,
    accuracy_threshold: float = ACCURACY_THRESHOLD,
    shift: bool = False,
) -> SampleStatistics:
    """[`token_statistics`] of samples laid end to end in one row, without padding.

    Args:
        logits: (1, T, V) floating point.
        labels: (1, T) integers.
        sample_of_token: (T,) integers, which sample each token belongs to: 0 to B − 1, or −1 for none.
        num_samples: B.
        accuracy_threshold: as there.
        shift: as there; the first label of a sample is not predicted from the sample before.

    Returns:
        The statistics of the B samples, in their order.
    """
    if shift:
        labels, sample_of_token = shifted(labels), _sample_of_next_token(sample_of_token)
    asked = is_class(labels, logits.shape[-1], IGNORE_INDEX) & (sample_of_token >= 0)
    statistics = _statistics_by_row(logits.detach(), labels, asked)
    return _mean_over(*_sums_by_sample(statistics, asked, sample_of_token, num_samples), accuracy_threshold)


@torch.no_grad()
def scored_token_statistics(
    log_probabilities: Tensor,
    right: Tensor,
    entropy: Tensor,
    asked: Tensor,
    *,
    accuracy_threshold: float = ACCURACY_THRESHOLD,
    sample_of_token: Tensor | None = None,
    num_samples: int | None = None,
) -> SampleStatistics:
    """[`token_statistics`] of causal language modelling where no logits were built, only the statistics of each token.

    Args:
        log_probabilities: (B, T − 1) floating point, of the label that each token but the last predicts.
        right: (B, T − 1) bool, whether that label is the argmax.
        entropy: (B, T − 1) floating point, of the prediction, in nats.
        asked: (B, T − 1) bool, false where the label is masked.
        accuracy_threshold: as there.
        sample_of_token: (T,) integers, where several samples lie end to end in one row: see
            [`flattened_token_statistics`].
        num_samples: how many they are.

    Returns:
        As there, but for the confidence in a prediction that is wrong: of its largest probability only a lower bound
        is known, exp(−entropy), so the sample is hidden at most as easily.
    """
    log_confidence = torch.where(right, log_probabilities.detach(), -entropy.detach())
    statistics = torch.stack([-log_probabilities.detach(), right, log_confidence.exp()]).float()
    if sample_of_token is not None and num_samples is not None:
        sample_of_token = _sample_of_next_token(sample_of_token)[:-1]
        asked = asked & (sample_of_token >= 0)
        sums, counts = _sums_by_sample(statistics, asked, sample_of_token, num_samples)
        return _mean_over(sums, counts, accuracy_threshold)
    return _mean_over(statistics.masked_fill(~asked, 0.0).sum(dim=2), asked.sum(dim=1), accuracy_threshold)


@torch.no_grad()
def segmentation_statistics(
    logits: Tensor,
    labels: Tensor,
    *,
    accuracy_threshold: float = ACCURACY_THRESHOLD,
    ignore_index: int = IGNORE_INDEX,
) -> SampleStatistics:
    """Statistics of a semantic segmentation, in which every pixel has a class.

    Args:
        logits: (B, C, h, w) floating point; resized to the labels as Transformers does it (bilinear) where they differ.
            One class alone, C = 1, is one question with the answers yes (1) and no (0).
        labels: (B, H, W) integers in 0..C−1; −100, `ignore_index` and what is no class is masked.
        accuracy_threshold: the fraction of right pixels, in [0, 1], from which on a sample is correct.
        ignore_index: one more label that is masked: 255 in Transformers' models.

    Returns:
        As [`token_statistics`], over the pixels that are not masked.
    """
    logits = logits.detach()
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    asked = is_class(labels, logits.shape[1], ignore_index)
    sums = [
        _statistics_of_image(image, image_labels, image_asked).sum(dim=1)
        for image, image_labels, image_asked in zip(logits, labels, asked, strict=True)
    ]
    return _mean_over(torch.stack(sums, dim=1), asked.flatten(1).sum(dim=1), accuracy_threshold)


def shifted(labels: Tensor) -> Tensor:
    """Labels (B, T) at the places from which they are predicted, one earlier; the last place has none."""
    return functional.pad(labels, (0, 1), value=IGNORE_INDEX)[:, 1:]


def is_class(labels: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Which labels ask for something."""
    return (labels >= 0) & (labels < classes) & (labels != ignore_index)


def _sample_of_next_token(sample_of_token: Tensor) -> Tensor:
    """(T,): the sample of each token that predicts the next one of the same sample, −1 for the others."""
    following = functional.pad(sample_of_token[1:], (0, 1), value=-1)
    return following.masked_fill(following != sample_of_token, -1)


def _sums_by_sample(
    statistics: Tensor, asked: Tensor, sample_of_token: Tensor, num_samples: int
) -> tuple[Tensor, Tensor]:
    """Sums (3, B) of statistics (3, 1, T) of one row over the tokens of each sample, and how many were asked (B,)."""
    sample, asked = sample_of_token.clamp(min=0), asked[0]
    masked = statistics[:, 0].masked_fill(~asked, 0.0)
    sums = statistics.new_zeros(3, num_samples).index_add_(1, sample, masked)
    counts = torch.zeros(num_samples, dtype=torch.int64, device=asked.device).index_add_(0, sample, asked.long())
    return sums, counts


def _mean_over(sums: Tensor, counts: Tensor, accuracy_threshold: float) -> SampleStatistics:
    """Statistics from the sums (3, B) of loss, right answers and confidence over the questions of each sample."""
    loss, accuracy, confidence = sums / counts.clamp(min=1)
    # A fraction such as 0.9 of ten tokens must not be missed by the rounding of the threshold.
    correct = accuracy >= accuracy_threshold - 1e-6
    return nothing_asked(SampleStatistics(loss, correct, confidence), counts > 0)


def _statistics_by_row(logits: Tensor, labels: Tensor, asked: Tensor) -> Tensor:
    """Loss, rightness and confidence (3, B, T) of each token, 0 where nothing was asked; logits (B, T, V)."""
    shape = labels.shape
    labels, asked = labels.reshape(-1), asked.reshape(-1)
    statistics = torch.zeros(3, labels.numel(), device=logits.device)
    # A view that is not contiguous cannot be flattened without a copy of it all; sample by sample it can.
    blocks = [logits.reshape(-1, logits.shape[-1])] if logits.is_contiguous() else list(logits)
    start = 0
    for block in blocks:
        end = start + block.shape[0]
        _fill(statistics[:, start:end], block, labels[start:end], asked[start:end])
        start = end
    return statistics.reshape(3, *shape)


def _fill(statistics: Tensor, logits: Tensor, labels: Tensor, asked: Tensor) -> None:
    """Write the statistics (3, R) of rows of logits (R, V)."""
    size = _rows_in_a_piece(logits)
    if not _knows_its_rows(logits):
        _fill_all(statistics, logits, labels.masked_fill(~asked, 0).long(), size)
        statistics.masked_fill_(~asked, 0.0)
        return
    # One row in seven asks for something in masked language modelling.
    for rows in torch.split(asked.nonzero().squeeze(1), size):
        if rows.numel():
            statistics[:, rows] = _statistics(_pick(logits, rows), labels[rows], dim=1)


def _fill_all(statistics: Tensor, logits: Tensor, labels: Tensor, size: int) -> None:
    """Write the statistics (3, R) of all rows, so many at a time: what is small is done for all at once."""
    of_label, log_confidence = torch.empty_like(statistics[:2])
    for piece in _pieces(logits.shape[0], size):
        log_probabilities = torch.log_softmax(logits[piece], dim=1, dtype=torch.float32)
        torch.gather(log_probabilities, 1, labels[piece].unsqueeze(1), out=of_label[piece].unsqueeze(1))
        torch.amax(log_probabilities, dim=1, out=log_confidence[piece])
    torch.stack([-of_label, (of_label >= log_confidence).float(), log_confidence.exp()], out=statistics)


def _knows_its_rows(logits: Tensor) -> bool:
    """Whether it costs nothing to know which rows ask for something; on a GPU it would stop the step."""
    return logits.device.type == "cpu"


def _pick(logits: Tensor, rows: Tensor) -> Tensor:
    """Rows of logits by their ascending numbers; where they follow one another, without copying them."""
    first, last = int(rows[0]), int(rows[-1]) + 1
    return logits[first:last] if last - first == rows.numel() else logits[rows]


def _statistics_of_image(logits: Tensor, labels: Tensor, asked: Tensor) -> Tensor:
    """Figures (3, pixels) of one image: logits (C, h, w), labels and asked (H, W)."""
    resized = logits.unsqueeze(0).float()
    if logits.shape[-2:] != labels.shape:
        resized = functional.interpolate(resized, size=labels.shape, mode="bilinear", align_corners=False)
    statistics = _statistics(resized[0].flatten(1), labels.masked_fill(~asked, 0).flatten(), dim=0)
    return statistics.masked_fill(~asked.flatten(), 0.0)


def _statistics(logits: Tensor, labels: Tensor, dim: int) -> Tensor:
    """Loss, rightness and confidence (3, R) of R questions with a label each; the classes of `logits` lie in `dim`."""
    log_probabilities = torch.log_softmax(logits, dim=dim, dtype=torch.float32)
    # Where the largest is would take as long to find as all probabilities; whether it is the label's, next to nothing.
    log_confidence = log_probabilities.amax(dim=dim)
    of_label = log_probabilities.gather(dim, labels.long().unsqueeze(dim)).squeeze(dim)
    return torch.stack([-of_label, (of_label >= log_confidence).float(), log_confidence.exp()])


def _rows_in_a_piece(logits: Tensor) -> int:
    size = _PIECE_ON_CPU if logits.device.type == "cpu" else max(_PIECE, -(-logits.numel() // _MOST_PIECES))
    return max(size // logits.shape[-1], 1)


def _pieces(rows: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))
