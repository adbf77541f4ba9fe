"""The ledger at half the size: what it keeps, what it rounds, and that it decides as the full one does."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_kakurenbo import SampleLedger
from hf_kakurenbo.hiding import CompactLedger, KakurenboPolicy, Measurements, compact_ledger, create_ledger
from hf_kakurenbo.hiding.ranking import lowest_loss
from toy import make_trainer, same_tensors, same_weights, trained

HALF = torch.float16


def measurements(loss, correct, confidence):
    return Measurements.of(torch.arange(len(loss)), *map(torch.as_tensor, (loss, correct, confidence)))


def both(loss, correct, confidence):
    """A full and a compact ledger of the same measurements."""
    ledgers = SampleLedger(len(loss)), CompactLedger(len(loss))
    for ledger in ledgers:
        ledger.update(measurements(loss, correct, confidence))
    return ledgers


def late_in_a_training(count):
    generator = np.random.default_rng(0)
    loss = np.exp(1.5 * generator.standard_normal(count, dtype=np.float32) - 1)
    loss[generator.random(count) < 0.1] *= 1e-6  # known so well that half precision has few digits left
    loss[generator.random(count) < 0.01] = np.nan
    confidence = np.sqrt(generator.random(count, dtype=np.float32))
    return loss, generator.random(count) < 0.8, confidence


def test_shapes_dtypes_and_bytes():
    ledger = CompactLedger(1000)
    found = {name: getattr(ledger, name) for name in ("loss", "confidence", "correct", "hidden", "times_hidden")}
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "loss": torch.float32,
        "confidence": torch.float32,
        "correct": torch.bool,
        "hidden": torch.bool,
        "times_hidden": torch.int32,
    }
    assert all(tensor.shape == (1000,) for tensor in found.values())
    assert ledger.nbytes == 6 * 1000
    assert bool(ledger.loss.isnan().all())
    assert not ledger.confidence.any()
    assert not ledger.correct.any()


def test_what_is_rounded():
    loss = [0.1, 1e-9, 7e4, 1e30, -1e30, math.inf, -math.inf, math.nan]
    _, ledger = both(loss, [True] * 8, [0.1] * 8)
    largest = 65504.0
    expected = torch.tensor(
        [torch.tensor(0.1, dtype=HALF), 0.0, largest, largest, -largest, math.inf, -math.inf, math.nan]
    )
    torch.testing.assert_close(ledger.loss, expected, equal_nan=True, rtol=0, atol=0)
    assert torch.equal(ledger.confidence, torch.full((8,), 0.1, dtype=HALF).float())


@given(
    samples=st.lists(
        st.tuples(st.floats(width=16), st.booleans(), st.sampled_from([0.0, 1e-7, 0.5, 1.0])), min_size=1, max_size=30
    )
)
def test_what_half_precision_can_hold_is_kept(samples):
    full, compact = both(*zip(*samples, strict=True))
    assert torch.equal(compact.correct, full.correct)
    assert torch.equal(compact.confidence, full.confidence.to(HALF).float())
    torch.testing.assert_close(compact.loss, full.loss, equal_nan=True, rtol=0, atol=0)
    where = np.arange(len(samples))[::2]
    for name in ("loss", "confidence", "correct"):
        for some in (where, slice(1, None)):
            np.testing.assert_array_equal(getattr(compact, f"{name}_at")(some), getattr(compact, name).numpy()[some])


def test_the_first_measurement_of_a_sample_counts():
    ledger = CompactLedger(3)
    ledger.update(
        Measurements.of(
            torch.tensor([2, 0, 2]), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([False, True, True]), torch.ones(3)
        )
    )
    assert ledger.loss[[0, 2]].tolist() == [2.0, 1.0]
    assert ledger.correct.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("ledger", "most"), [(SampleLedger(2), 32767), (CompactLedger(2), 255)], ids=["full", "compact"]
)
def test_the_count_of_epochs_does_not_run_over(ledger, most):
    ledger._times_hidden.fill_(most - 1)
    for _ in range(3):
        ledger.hide(torch.tensor([True, False]))
    assert ledger.times_hidden.tolist() == [most, most - 1]


@pytest.mark.parametrize(
    ("precision", "num_samples", "kind"),
    [
        ("full", 200, SampleLedger),
        ("compact", 5, CompactLedger),
        ("auto", 99, SampleLedger),
        ("auto", 100, CompactLedger),
    ],
)
def test_the_precision_is_chosen(precision, num_samples, kind, monkeypatch):
    monkeypatch.setattr(compact_ledger, "COMPACT_FROM", 100)
    assert type(create_ledger(num_samples, precision)) is kind


def test_an_unknown_precision():
    with pytest.raises(ValueError, match=r"ledger_precision='half' must be 'full'.*'compact'.*'auto'.*100,000,000"):
        create_ledger(5, "half")


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.7])
@pytest.mark.parametrize("threshold", [0.0, 0.7])
def test_it_decides_as_the_full_ledger_but_for_what_rounding_makes_equal(fraction, threshold):
    loss, correct, confidence = late_in_a_training(200_000)
    full, compact = both(loss, correct, confidence)
    policy = KakurenboPolicy(fraction, confidence_threshold=threshold)
    expected, found = policy.select(full, 1, 0.0), policy.select(compact, 1, 0.0)
    assert found.candidates == expected.candidates

    differ = (found.hidden ^ expected.hidden).numpy()
    kth = np.float16(np.sort(loss)[expected.candidates - 1])
    ties = loss.astype(np.float16) == kth
    across = (confidence >= np.float32(threshold)) != (confidence.astype(np.float16) >= np.float32(threshold))
    assert not np.any(differ & ~ties & ~across)
    assert differ.mean() < 2e-3
    assert expected.hidden.float().mean() > 0.3 * fraction


@pytest.mark.parametrize("count", [0, 1, 50, 150_000, 199_000, 200_000])
def test_of_rounded_losses_both_choose_the_same(count):
    loss, correct, confidence = late_in_a_training(200_000)
    full, compact = both(loss.astype(np.float16).astype(np.float32), correct, confidence)
    np.testing.assert_array_equal(lowest_loss(full, count), lowest_loss(compact, count))


@pytest.mark.parametrize("made", [SampleLedger, CompactLedger])
@pytest.mark.parametrize("taken", [SampleLedger, CompactLedger])
def test_a_state_is_taken_over_from_any_precision(made, taken):
    ledger, other = made(50), taken(50)
    loss, correct, confidence = late_in_a_training(50)
    ledger.update(measurements(loss, correct, confidence))
    ledger.hide(torch.arange(50) < 9)
    other.load_state_dict(ledger.state_dict())
    if made is taken:
        assert same_tensors(other.state_dict(), ledger.state_dict())
    for name in ("correct", "hidden", "times_hidden"):
        assert torch.equal(getattr(other, name), getattr(ledger, name))
    for name in ("loss", "confidence"):
        expected = getattr(ledger, name).to(HALF if taken is CompactLedger else torch.float32).float()
        torch.testing.assert_close(getattr(other, name), expected, equal_nan=True, rtol=0, atol=0)


OPTIONS = {"num_train_epochs": 5, "confidence_threshold": 0.2, "max_hidden_fraction": 0.4, "save_strategy": "steps"}


def test_a_training_with_it(tmp_path):
    full, compact = (
        trained(tmp_path / precision, ledger_precision=precision, save_steps=0.5, **OPTIONS)
        for precision in ("full", "compact")
    )
    assert (type(full.ledger), type(compact.ledger)) == (SampleLedger, CompactLedger)
    first = next(epoch for epoch, hidden in enumerate(full.watch.hidden) if hidden.any())
    assert torch.equal(compact.watch.hidden[first], full.watch.hidden[first])
    [checkpoint, *_] = sorted((tmp_path / "compact").glob("checkpoint-*"))
    again = trained_from(checkpoint, tmp_path / "again", "compact")
    assert same_weights(again, compact)
    assert same_tensors(again.ledger.state_dict(), compact.ledger.state_dict())
    assert type(trained_from(checkpoint, tmp_path / "other", "full").ledger) is SampleLedger


def trained_from(checkpoint, output_dir, precision):
    trainer = make_trainer(output_dir, ledger_precision=precision, save_steps=0.5, **OPTIONS)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    return trainer
