"""Per-sample figures against PyTorch's own losses, one sample at a time."""

import pytest
import torch
from torch.nn import functional
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_kakurenbo.hiding import Recorder, classification_statistics, single_label_statistics, soft_label_statistics
from hf_kakurenbo.hiding.statistics import (
    Classification,
    ClassificationMatcher,
    check_label_values,
    match_classification,
)

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(32, 7, generator=GENERATOR)
LABELS = torch.randint(0, 7, (32,), generator=GENERATOR)
SOFT = torch.rand(32, 7, generator=GENERATOR).softmax(dim=1)


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


def test_small_losses_keep_their_order():
    logits = torch.tensor([[20.0 + step, 0.0, 0.0] for step in range(6)])
    loss = single_label_statistics(logits, torch.zeros(6, dtype=torch.int64)).loss
    assert bool((loss[:-2] >= loss[1:-1]).all())
    assert float(single_label_statistics(torch.tensor([[5.0, 0.0, 0.0]]), torch.tensor([0])).loss) > 0


def test_no_gradient():
    logits = LOGITS.clone().requires_grad_()
    for found in (single_label_statistics(logits, LABELS), soft_label_statistics(logits, SOFT)):
        assert not any(field.requires_grad for field in found)


@pytest.mark.parametrize(
    "outputs",
    [
        {"loss": torch.tensor(1.0), "logits": LOGITS},
        SequenceClassifierOutput(loss=torch.tensor(1.0), logits=LOGITS),
        (torch.tensor(1.0), LOGITS),
        (LOGITS, torch.ones(32, 4)),
        LOGITS,
    ],
    ids=["dict", "ModelOutput", "tuple with a loss", "tuple without", "tensor"],
)
@pytest.mark.parametrize("labels", [LABELS, LABELS.unsqueeze(1), SOFT], ids=["(B,)", "(B, 1)", "soft"])
def test_the_rule_is_found(outputs, labels):
    rule = soft_label_statistics if labels is SOFT else single_label_statistics
    found = classification_statistics(outputs, {"labels": labels})
    assert all(torch.equal(a, b) for a, b in zip(found, rule(LOGITS, labels), strict=True))


def test_the_labels_are_found_by_name():
    assert match_classification(LOGITS, {"target": LABELS}, label_names=["labels", "target"]).labels is LABELS


@pytest.mark.parametrize(
    ("outputs", "labels", "problem_type"),
    [
        ({"loss": torch.tensor(1.0)}, LABELS, None),
        ({"logits": LOGITS}, SOFT, "multi_label_classification"),
        ({"logits": LOGITS[:, :1]}, torch.rand(32), "regression"),
        ({"logits": LOGITS[:, :1]}, torch.rand(32), None),
        ({"logits": LOGITS.unsqueeze(1)}, LABELS.unsqueeze(1), None),
        ({"logits": LOGITS}, LABELS[:5], None),
        ({"logits": LOGITS}, SOFT[:, :3], None),
        ({"logits": LOGITS}, LABELS.tolist(), None),
    ],
    ids=["no logits", "several labels", "regression", "one column", "tokens", "lengths", "classes", "a list"],
)
def test_a_batch_that_no_rule_fits(outputs, labels, problem_type):
    with pytest.raises(ValueError, match=r"(?s)No built-in rule.*The model returned dict.*def my_statistics"):
        classification_statistics(outputs, {"labels": labels}, problem_type=problem_type)


def test_no_labels():
    with pytest.raises(
        ValueError, match=r"(?s)no labels.*Looked for 'labels' in a batch of dict\(x: \(32, 7\) float32\)"
    ):
        classification_statistics(LOGITS, {"x": LOGITS})


def test_rows_that_do_not_sum_to_one():
    check_label_values(SOFT.half())
    check_label_values(LABELS)
    with pytest.raises(ValueError, match="rows sum to 2 to 2"):
        check_label_values(2 * SOFT)


@pytest.mark.parametrize("labels", [LABELS, SOFT], ids=["hard", "soft"])
def test_together_or_one_by_one_is_the_same(labels, monkeypatch):
    rule = single_label_statistics if labels is LABELS else soft_label_statistics
    gathered = []
    for waiting in (0, 100, 2**18):
        monkeypatch.setattr(Recorder, "_WAITING_ELEMENTS", waiting)
        recorder = Recorder()
        for ids in torch.arange(32).split(5):
            recorder.add_classification(ids, Classification(rule, LOGITS[ids], labels[ids]))
        gathered.append(recorder.gathered())
    for ids, figures in gathered:
        assert torch.equal(ids, torch.arange(32))
        assert torch.equal(figures, gathered[0].figures)


def test_what_waits_is_a_copy_and_keeps_its_place():
    recorder, logits = Recorder(), LOGITS[:4].clone()
    recorder.add_classification(torch.arange(4), Classification(single_label_statistics, logits, LABELS[:4]))
    logits.zero_()
    recorder.add_classification(torch.arange(4), Classification(soft_label_statistics, LOGITS[4:8], SOFT[4:8]))
    recorder.add(torch.arange(2), single_label_statistics(LOGITS[:2], LABELS[:2]))
    ids, figures = recorder.gathered()
    assert ids.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    torch.testing.assert_close(figures[:4, 0], functional.cross_entropy(LOGITS[:4], LABELS[:4], reduction="none"))
    torch.testing.assert_close(figures[:2], figures[-2:])


def test_a_batch_of_two_lengths():
    with pytest.raises(ValueError, match=r"The batch has 3 samples, but its logits are \(4, 7\) float32"):
        Recorder().add_classification(torch.arange(3), Classification(single_label_statistics, LOGITS[:4], LABELS[:4]))


def test_what_fitted_the_last_batch_is_not_forced_on_the_next():
    match = ClassificationMatcher(["labels", "target"])
    soft = torch.softmax(LOGITS, dim=1)
    for outputs, inputs in [
        ({"logits": LOGITS}, {"labels": LABELS}),
        ({"logits": LOGITS[:2]}, {"labels": LABELS[:2]}),
        ({"logits": LOGITS}, {"labels": soft}),
        ((LOGITS,), {"target": LABELS}),
        ({"logits": LOGITS}, {"target": LABELS}),
    ]:
        assert match(outputs, inputs) == match_classification(outputs, inputs, ["labels", "target"])
    with pytest.raises(ValueError, match="The batch has no labels"):
        match({"logits": LOGITS}, {})
    with pytest.raises(ValueError, match="No built-in rule"):
        match({"loss": LOGITS.sum()}, {"labels": LABELS})
