"""Every rule on the stand-in device: the figures of the CPU, without a word to the host, and without float64."""

import pytest
import torch

from hf_kakurenbo.hiding.statistics import tokens
from measured_rules import RULES
from standin_device import DEVICE, report
from standin_training import own, read_back, sent, standin


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_rule_stays_on_the_device(monkeypatch, name, dtype):
    monkeypatch.setattr(tokens, "_PIECE", 32)
    rule, logits, labels = RULES[name]
    logits = logits.to(dtype)
    expected = rule(logits, labels)
    with standin() as device:
        device.missing.add(torch.float64)
        # As they come from a model: views stay views.
        given = logits.to(DEVICE).requires_grad_(), labels.to(DEVICE)
        device.events.clear()
        statistics = rule(*given)
        talk = own(read_back(device.events) + sent(device.events))
        assert not talk, report(talk)
        assert all(field.device == DEVICE and not field.requires_grad for field in statistics)
        assert [field.dtype for field in statistics] == [torch.float32, torch.bool, torch.float32]
        for field, of_cpu in zip(statistics, expected, strict=True):
            torch.testing.assert_close(field.cpu(), of_cpu, equal_nan=True)


@pytest.mark.parametrize(("piece", "pieces"), [(2**23, 1), (1024, 12), (8, 96)])
def test_the_statistics_of_tokens_take_three_kernels_for_each_of_at_most_96_pieces(monkeypatch, piece, pieces):
    """Each further one is a launch that is worth nothing; a vocabulary of 128k words makes thousands of them."""
    monkeypatch.setattr(tokens, "_PIECE", piece)
    monkeypatch.setattr(tokens, "_MOST_PIECES", 96)
    logits, labels = torch.randn(2, 96, 64), torch.arange(192).reshape(2, 96) % 64
    expected = tokens.token_statistics(logits, labels)
    with standin() as device:
        given = logits.to(DEVICE), labels.to(DEVICE)
        device.events.clear()
        statistics = tokens.token_statistics(*given)
        kernels = device.of("kernel")
        assert 3 * pieces <= len(kernels) <= 3 * pieces + 31, report(kernels)
        assert not device.of("sync"), report(device.of("sync"))
        for field, of_cpu in zip(statistics, expected, strict=True):
            torch.testing.assert_close(field.cpu(), of_cpu)
