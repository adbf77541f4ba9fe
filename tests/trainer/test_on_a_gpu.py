"""On a GPU: the statistics and the trainings of the CPU, without a wait in a step that Trainer does not have."""

import warnings

import pytest
import torch

from hf_kakurenbo.hiding.recorder import Recorder
from measured_rules import RULES
from needs_gpu import NEEDS_GPU
from toy import LinearClassifier, samples, trained

pytestmark = NEEDS_GPU

OPTIONS = {"num_train_epochs": 4, "model": LinearClassifier, "move_back": False}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_rule_gives_what_the_cpu_gives_and_waits_for_nothing(name, dtype):
    rule, logits, labels = RULES[name]
    expected = rule(logits.to(dtype), labels)
    given = logits.to("cuda", dtype), labels.to("cuda")
    rule(*given)  # what is loaded once
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            measured = rule(*given)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    # Some of the rules copy what they compare with to the device first.
    waits = [f"{one.filename}:{one.lineno}: {one.message}" for one in caught if "/tests/" not in one.filename]
    assert not waits
    for field, of_cpu in zip(measured, expected, strict=True):
        assert field.device.type == "cuda"
        torch.testing.assert_close(field.cpu(), of_cpu, equal_nan=True)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_has_deterministic_kernels(name):
    rule, logits, labels = RULES[name]
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (rule(logits.to("cuda"), labels.to("cuda")) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("waiting", [0, 2**18], ids=["at once", "later"])
@pytest.mark.parametrize("options", [{}, {"bf16": True}, {"torch_compile": True}], ids=str)
def test_a_training_hides_what_that_on_the_cpu_hides(tmp_path, monkeypatch, waiting, options):
    monkeypatch.setattr(Recorder, "_WAITING_ELEMENTS", waiting)
    there = trained(tmp_path / "gpu", use_cpu=False, **OPTIONS, **options)
    here = trained(tmp_path / "cpu", **OPTIONS, **{name: value for name, value in options.items() if name == "bf16"})
    assert there.args.device.type == "cuda"
    assert there.ledger.num_hidden == here.ledger.num_hidden > 0
    alike = (there.ledger.times_hidden == here.ledger.times_hidden).float().mean()
    assert alike > (0.9 if options else 0.95)
    tolerance = 0.1 if options else 1e-3  # in half precision, or in the TF32 that Trainer chooses for compiled models
    torch.testing.assert_close(there.ledger.loss, here.ledger.loss, rtol=tolerance, atol=tolerance)


def test_samples_that_are_on_the_device_are_trained_on(tmp_path):
    there = [{name: value.to("cuda") for name, value in sample.items()} for sample in samples()]
    trainer = trained(tmp_path, dataset=there, use_cpu=False, dataloader_pin_memory=False, **OPTIONS)
    assert trainer.ledger.num_hidden > 0
