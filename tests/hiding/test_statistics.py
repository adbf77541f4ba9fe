"""Per-sample figures against PyTorch's own losses, one sample at a time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from hf_kakurenbo.hiding import (
    flattened_token_statistics,
    multi_label_statistics,
    question_answering_statistics,
    regression_statistics,
    segmentation_statistics,
    single_label_statistics,
    soft_label_statistics,
    token_statistics,
)
from hf_kakurenbo.hiding.statistics import scored_token_statistics, tokens

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(32, 7, generator=GENERATOR)
LABELS = torch.randint(0, 7, (32,), generator=GENERATOR)
SOFT = torch.rand(32, 7, generator=GENERATOR).softmax(dim=1)

TOKEN_LOGITS = 3 * torch.randn(6, 11, 13, generator=GENERATOR)
TOKEN_LABELS = torch.where(
    torch.rand(6, 11, generator=GENERATOR) < 0.6,
    TOKEN_LOGITS.argmax(2),
    torch.randint(0, 13, (6, 11), generator=GENERATOR),
)
TOKEN_LABELS[torch.rand(6, 11, generator=GENERATOR) < 0.3] = -100
TOKEN_LABELS[4] = -100

PIXEL_LOGITS = 3 * torch.randn(4, 5, 6, 7, generator=GENERATOR)
PIXEL_LABELS = torch.randint(0, 5, (4, 12, 21), generator=GENERATOR)
PIXEL_LABELS[torch.rand(4, 12, 21, generator=GENERATOR) < 0.2] = 255
PIXEL_LABELS[1] = 255


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_single_label(dtype):
    logits = LOGITS.to(dtype)
    found = single_label_statistics(logits, LABELS)
    for row, label, loss, correct, confidence in zip(logits.float(), LABELS, *found, strict=True):
        torch.testing.assert_close(loss, functional.cross_entropy(row, label))
        assert bool(correct) == (int(row.argmax()) == int(label))
        torch.testing.assert_close(confidence, row.softmax(0).max())


def test_soft_labels():
    found = soft_label_statistics(LOGITS, SOFT)
    for row, target, loss, correct, confidence in zip(LOGITS, SOFT, *found, strict=True):
        torch.testing.assert_close(loss, functional.cross_entropy(row, target))
        assert bool(correct) == (int(row.argmax()) == int(target.argmax()))
        torch.testing.assert_close(confidence, row.softmax(0).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_several_labels(dtype):
    # Half of the samples have every label right, the rest have one that is wrong.
    labels = (LOGITS > 0).to(dtype)
    labels[::2, 3] = 1 - labels[::2, 3]
    found = multi_label_statistics(LOGITS, labels)
    assert found.correct.tolist() == [False, True] * 16
    for row, target, loss, confidence in zip(LOGITS, labels.float(), found.loss, found.confidence, strict=True):
        torch.testing.assert_close(loss, functional.binary_cross_entropy_with_logits(row, target))
        torch.testing.assert_close(confidence, torch.maximum(row.sigmoid(), 1 - row.sigmoid()).min())
        assert 0.5 <= float(confidence) <= 1


@pytest.mark.parametrize("shape", [(32,), (32, 1), (32, 3)], ids=str)
def test_regression(shape):
    predictions, targets = torch.randn(shape, generator=GENERATOR), torch.randn(shape, generator=GENERATOR)
    found = regression_statistics(predictions, targets)
    for prediction, target, loss in zip(predictions, targets, found.loss, strict=True):
        torch.testing.assert_close(loss, functional.mse_loss(prediction, target))
    assert bool(found.correct.all())
    assert found.confidence.tolist() == [1.0] * 32


def test_regression_of_numbers_in_two_shapes():
    found = regression_statistics(LOGITS[:, :1], LOGITS[:, 1])
    torch.testing.assert_close(found.loss, (LOGITS[:, 0] - LOGITS[:, 1]).square())


def token_reference(logits, labels, threshold):
    """One sample, one token at a time."""
    asked = [(row, label) for row, label in zip(logits.double(), labels.tolist(), strict=True) if label >= 0]
    if not asked:
        return float("nan"), False, 0.0
    losses = [float(functional.cross_entropy(row, torch.tensor(label))) for row, label in asked]
    right = [int(row.argmax()) == label for row, label in asked]
    sure = [float(row.softmax(0).max()) for row, _ in asked]
    count = len(asked)
    return sum(losses) / count, sum(right) >= threshold * count - 1e-6, sum(sure) / count


def assert_as_reference(found, references):
    loss, correct, confidence = zip(*references, strict=True)
    torch.testing.assert_close(found.loss, torch.tensor(loss), equal_nan=True)
    assert found.correct.tolist() == list(correct)
    torch.testing.assert_close(found.confidence, torch.tensor(confidence))


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("piece", [1, 40, 2**20], ids="pieces of {}".format)
def test_tokens(threshold, piece, monkeypatch):
    monkeypatch.setattr(tokens, "_PIECE_ON_CPU", piece)
    found = token_statistics(TOKEN_LOGITS, TOKEN_LABELS, accuracy_threshold=threshold)
    assert_as_reference(
        found, [token_reference(*sample, threshold) for sample in zip(TOKEN_LOGITS, TOKEN_LABELS, strict=True)]
    )


@pytest.mark.parametrize("piece", [1, 40, 2**20], ids="pieces of {}".format)
def test_tokens_on_a_device_that_must_not_be_asked_which_rows_count(piece, monkeypatch):
    expected = token_statistics(TOKEN_LOGITS, TOKEN_LABELS)
    # The meta device is no CPU either, but has no values: the path of a GPU is taken on the CPU.
    monkeypatch.setattr(tokens, "_PIECE", piece)
    monkeypatch.setattr(tokens, "_knows_its_rows", lambda logits: False)
    found = token_statistics(TOKEN_LOGITS, TOKEN_LABELS)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)


def test_causal_tokens_are_predicted_from_those_before():
    found = token_statistics(TOKEN_LOGITS, TOKEN_LABELS, shift=True)
    pairs = zip(TOKEN_LOGITS[:, :-1], TOKEN_LABELS[:, 1:], strict=True)
    assert_as_reference(found, [token_reference(*pair, 0.9) for pair in pairs])


def test_logits_that_are_a_view():
    wide = torch.randn(6, 20, 13, generator=GENERATOR)
    view = wide[:, 4:15]
    assert not view.is_contiguous()
    for one, other in zip(
        token_statistics(view, TOKEN_LABELS), token_statistics(view.contiguous(), TOKEN_LABELS), strict=True
    ):
        torch.testing.assert_close(one, other, equal_nan=True)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    padding=st.integers(0, 3),
    shift=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_samples_end_to_end_have_the_figures_that_they_have_alone(lengths, padding, shift, seed):
    generator = torch.Generator().manual_seed(seed)
    samples = [3 * torch.randn(length, 5, generator=generator) for length in [*lengths, padding]]
    labels = [torch.randint(-1, 5, (length,), generator=generator) for length in [*lengths, padding]]
    labels = [places.masked_fill(places < 0, -100) for places in labels]
    sample_of_token = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    found = flattened_token_statistics(
        torch.cat(samples).unsqueeze(0),
        torch.cat(labels).unsqueeze(0),
        functional.pad(sample_of_token, (0, padding), value=-1),
        len(lengths),
        shift=shift,
    )
    alone = [
        token_statistics(sample.unsqueeze(0), places.unsqueeze(0), shift=shift)
        for sample, places in zip(samples[:-1], labels[:-1], strict=True)
    ]
    for field, parts in zip(found, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(field, torch.cat(parts), equal_nan=True)


def scores(logits, labels):
    """What a fused loss knows of each token in the place of logits: log p, is it the argmax, entropy, is it asked."""
    log_probabilities = logits[:, :-1].log_softmax(2)
    labels, asked = labels[:, 1:].clamp(min=0), labels[:, 1:] >= 0
    entropy = -(log_probabilities.exp() * log_probabilities).sum(2)
    scored = log_probabilities.gather(2, labels.unsqueeze(2)).squeeze(2).masked_fill(~asked, 0.0)
    return scored, (log_probabilities.argmax(2) == labels) & asked, entropy.masked_fill(~asked, 0.0), asked


def test_scores_of_tokens_say_the_same_but_for_the_confidence_in_what_is_wrong():
    found = scored_token_statistics(*scores(TOKEN_LOGITS, TOKEN_LABELS), accuracy_threshold=0.5)
    full = token_statistics(TOKEN_LOGITS, TOKEN_LABELS, accuracy_threshold=0.5, shift=True)
    torch.testing.assert_close(found.loss, full.loss, equal_nan=True)
    assert torch.equal(found.correct, full.correct)
    assert bool((found.confidence <= full.confidence + 1e-6).all())
    right = TOKEN_LOGITS[:, :-1].argmax(2)
    all_right = torch.cat([right[:, :1], right], dim=1)
    torch.testing.assert_close(
        scored_token_statistics(*scores(TOKEN_LOGITS, all_right)).confidence,
        token_statistics(TOKEN_LOGITS, all_right, shift=True).confidence,
    )


def test_scores_of_samples_end_to_end():
    logits, labels = TOKEN_LOGITS[:3].reshape(1, 33, 13), TOKEN_LABELS[:3].reshape(1, 33)
    sample_of_token = torch.arange(3).repeat_interleave(11)
    found = scored_token_statistics(*scores(logits, labels), sample_of_token=sample_of_token, num_samples=3)
    alone = scored_token_statistics(*scores(TOKEN_LOGITS[:3], TOKEN_LABELS[:3]))
    for one, other in zip(found, alone, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("threshold", [0.1, 0.2, 0.9])
def test_pixels(threshold):
    found = segmentation_statistics(PIXEL_LOGITS, PIXEL_LABELS, accuracy_threshold=threshold, ignore_index=255)
    resized = functional.interpolate(PIXEL_LOGITS, size=(12, 21), mode="bilinear", align_corners=False)
    labels = PIXEL_LABELS.masked_fill(PIXEL_LABELS == 255, -100)
    pairs = zip(resized.flatten(2).transpose(1, 2), labels.flatten(1), strict=True)
    references = [token_reference(*pair, threshold) for pair in pairs]
    assert_as_reference(found, references)
    assert [bool(torch.tensor(loss).isnan()) for loss, _, _ in references] == [False, True, False, False]


def test_pixels_of_one_class_are_asked_yes_or_no():
    labels = torch.randint(0, 2, (4, 6, 7), generator=GENERATOR)
    found = segmentation_statistics(PIXEL_LOGITS[:, :1], labels)
    loss = functional.binary_cross_entropy_with_logits(PIXEL_LOGITS[:, 0], labels.float(), reduction="none")
    torch.testing.assert_close(found.loss, loss.mean(dim=(1, 2)))


def test_a_label_that_is_the_ignored_one_is_masked_although_it_is_a_class():
    found = segmentation_statistics(PIXEL_LOGITS, torch.full((4, 6, 7), 3), ignore_index=3)
    assert bool(found.loss.isnan().all())


def test_spans():
    places = torch.tensor([[3, 7], [0, 99], [99, 99], [2, 2]])
    logits = 3 * torch.randn(4, 2, 11, generator=GENERATOR)
    logits[0, 0, 3], logits[0, 1, 7], logits[1, 0, 0] = 20.0, 20.0, 20.0
    found = question_answering_statistics(logits, places)
    both = [functional.cross_entropy(logits[row], places[row]) for row in (0, 3)]
    start = functional.cross_entropy(logits[1, 0], places[1, 0])
    torch.testing.assert_close(
        found.loss, torch.stack([both[0], start, torch.tensor(torch.nan), both[1]]), equal_nan=True
    )
    assert found.correct.tolist() == [True, True, False, bool((logits[3].argmax(1) == 2).all())]
    torch.testing.assert_close(found.confidence[[0, 1, 3]], logits.softmax(2).amax(2).prod(1)[[0, 1, 3]])


def test_the_confidence_is_over_the_classes_and_not_over_the_batch():
    alone = single_label_statistics(LOGITS[:1], LABELS[:1])
    among = single_label_statistics(LOGITS, LABELS)
    torch.testing.assert_close(among.confidence[:1], alone.confidence)


def test_a_masked_label_has_no_loss_and_is_not_correct():
    labels = LABELS.clone()
    labels[3] = -100
    found = single_label_statistics(LOGITS, labels)
    assert bool(found.loss[3].isnan())
    assert not bool(found.correct[3])
    assert int(found.loss.isnan().sum()) == 1


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_give_a_loss_that_is_not(bad):
    token_logits, logits, pixels = TOKEN_LOGITS.clone(), LOGITS.clone(), PIXEL_LOGITS.clone()
    token_logits[0, :, 2], logits[0, 2], pixels[0, 2] = bad, bad, bad
    assert not bool(token_statistics(token_logits, torch.ones(6, 11, dtype=torch.int64)).loss[0].isfinite())
    assert not bool(single_label_statistics(logits, torch.ones_like(LABELS)).loss[0].isfinite())
    assert not bool(segmentation_statistics(pixels, torch.ones(4, 6, 7, dtype=torch.int64)).loss[0].isfinite())


def test_small_losses_keep_their_order():
    logits = torch.tensor([[20.0 + step, 0.0, 0.0] for step in range(6)])
    loss = single_label_statistics(logits, torch.zeros(6, dtype=torch.int64)).loss
    assert bool((loss[:-2] >= loss[1:-1]).all())
    assert float(single_label_statistics(torch.tensor([[5.0, 0.0, 0.0]]), torch.tensor([0])).loss) > 0


def test_no_gradient():
    for rule, logits, labels in [
        (single_label_statistics, LOGITS, LABELS),
        (soft_label_statistics, LOGITS, SOFT),
        (multi_label_statistics, LOGITS, SOFT),
        (regression_statistics, LOGITS, SOFT),
        (token_statistics, TOKEN_LOGITS, TOKEN_LABELS),
        (segmentation_statistics, PIXEL_LOGITS, PIXEL_LABELS),
        (question_answering_statistics, TOKEN_LOGITS[:, :2], TOKEN_LABELS[:, :2]),
    ]:
        found = rule(logits.clone().requires_grad_(), labels)
        assert not any(field.requires_grad for field in found)
