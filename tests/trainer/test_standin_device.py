"""The stand-in device itself: it refuses, waits and counts as CUDA does, and says which line was the cause."""

import inspect
import operator

import numpy as np
import pytest
import torch
from torch import nn

from standin_device import DEVICE, OTHER_DEVICE, OnDevice, report
from standin_training import standin

HERE = torch.arange(6.0).reshape(2, 3)


@pytest.fixture
def device():
    with standin() as entered:
        yield entered


def here():
    """The place of the caller, as events name it."""
    frame = inspect.currentframe().f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


READS = {
    "item": lambda x, mask: x[0, 0].item(),
    "int": lambda x, mask: int(x[0, 0]),
    "bool": lambda x, mask: bool(x[0, 0]),
    "if": lambda x, mask: 1 if x.sum() > 0 else 0,
    "equal": lambda x, mask: torch.equal(x, x),
    "allclose": lambda x, mask: torch.allclose(x, x),
    "nonzero": lambda x, mask: x.nonzero(),
    "where of one argument": lambda x, mask: torch.where(mask),
    "unique": lambda x, mask: x.unique(),
    "a mask as index": lambda x, mask: x[mask],
    "masked_select": lambda x, mask: x.masked_select(mask),
    "written under a mask": lambda x, mask: operator.setitem(x, mask, x[0, :1].expand(int(HERE.numel()))),
    "repeat_interleave": lambda x, mask: torch.repeat_interleave(torch.ones(2, dtype=torch.int64, device=DEVICE)),
    "bincount": lambda x, mask: mask.flatten().int().bincount(),
}
COPIES = {
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "to with another dtype": lambda x: x.to("cpu", torch.float64),
    "tolist": lambda x: x.tolist(),
    "copy_": lambda x: torch.empty(2, 3).copy_(x),
    "numpy by force": lambda x: x.numpy(force=True),
}


@pytest.mark.parametrize("read", READS)
def test_what_waits_for_values_is_a_synchronisation(device, read):
    x = HERE.to(DEVICE)
    mask = x >= 0
    device.events.clear()
    READS[read](x, mask)
    assert len(device.of("sync")) == 1, report(device.events)
    assert not device.of("copy"), report(device.events)


@pytest.mark.parametrize("copy", COPIES)
def test_what_is_copied_to_the_host_is_waited_for(device, copy):
    x = HERE.to(DEVICE)
    device.events.clear()
    COPIES[copy](x)
    (event,) = device.events
    assert (event.kind, event.direction, event.waits) == ("copy", "to host", True)
    assert event.nbytes == (48 if "dtype" in copy else 24)


def test_an_event_names_its_line(device):
    x = HERE.to(DEVICE)
    device.events.clear()
    place = here(), x[1, 2].item()
    (event,) = device.events
    assert event.cause == place[0]
    assert "test_standin_device.py" in report([event])
    assert "x[1, 2].item()" in report([event])


def test_what_needs_no_value_does_not_wait(device):
    x = torch.rand(4, 3, device=DEVICE).requires_grad_()
    mask = x > 0.5
    device.events.clear()
    y = torch.where(mask, x, 0.0).masked_fill(mask, 1.0)
    y[mask.detach()[:, :1].expand(4, 3)] = 2.0
    rows = torch.repeat_interleave(torch.ones(2, dtype=torch.int64, device=DEVICE), output_size=2)
    (y[rows] @ x.T).log_softmax(1).sum().backward()
    nn.functional.cross_entropy(x, rows.repeat(2)).backward()
    assert not [event for event in device.events if event.waits], report(device.events)
    assert isinstance(x.grad, OnDevice)


def test_kernels_are_counted_and_views_are_not(device):
    x = HERE.to(DEVICE)
    device.events.clear()
    x.T.reshape(3, 2)[1:].unsqueeze(0).expand(4, 2, 2).detach()
    torch.empty(5, device=DEVICE)
    assert not device.events, report(device.events)
    (x + 1).mul_(2)
    torch.zeros(3, device=DEVICE)
    x.half()
    assert [event.kind for event in device.events] == ["kernel"] * 4


def test_results_are_those_of_the_cpu(device):
    x = HERE.to(DEVICE)
    x[0] += 1
    x.T[2] = 7
    assert torch.equal(x.cpu(), torch.tensor([[1.0, 2, 7], [3, 4, 7]]))


MIXES = {
    "sum": lambda there, host: there + host,
    "the other way round": lambda there, host: host + there,
    "product of matrices": lambda there, host: there @ host.T,
    "cat": lambda there, host: torch.cat([there, host]),
    "stack of numbers": lambda there, host: torch.stack([there[0, 0], host[0, 0]]),
    "into a CPU tensor": lambda there, host: host.add_(there),
    "a number of the device into a CPU tensor": lambda there, host: host.mul_(there[0, 0]),
    "gather": lambda there, host: there.gather(1, host.long().clamp(max=2)),
    "index of a CPU tensor": lambda there, host: host[there[:, 0].long().clamp(max=1)],
    "loss": lambda there, host: nn.functional.cross_entropy(there, host[:, 0].long()),
    "where": lambda there, host: torch.where(host > 1, there, 0.0),
    "masked_fill": lambda there, host: there.masked_fill(host > 1, 0.0),
    "equal": lambda there, host: torch.equal(there, host),
    "two devices": lambda there, host: there + host.to(OTHER_DEVICE),
    "numbers of two devices": lambda there, host: there[0, 0] + host.to(OTHER_DEVICE)[0, 0],
    "layer": lambda there, host: nn.Linear(3, 2)(there),
}


@pytest.mark.parametrize("mix", MIXES)
def test_devices_do_not_mix(device, mix):
    with pytest.raises(RuntimeError, match=r"two devices, .*test_standin_device.py:\d+ `") as raised:
        MIXES[mix](HERE.to(DEVICE), HERE.clone())
    assert mix in str(raised.value), "the line that mixed them is quoted"


def test_numpy_and_generators_of_the_host_are_refused(device):
    x = HERE.to(DEVICE)
    with pytest.raises(TypeError, match="numpy"):
        x.numpy()
    with pytest.raises(TypeError, match="numpy"):
        np.asarray(x)
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, device=DEVICE, generator=torch.Generator())


def test_what_cuda_takes_from_the_host_is_taken(device):
    x = HERE.to(DEVICE)
    x + torch.tensor(2.0)
    x.fill_(torch.tensor(2.0)).copy_(HERE)
    assert torch.tensor([1.0, 2.0], device=DEVICE).device == DEVICE
    device.events.clear()
    assert torch.equal(x[torch.tensor([1, 0])].cpu(), HERE[[1, 0]])
    assert [event.direction for event in device.of("copy")] == ["to device", "to host"]


def test_a_device_without_a_dtype_refuses_it(device):
    x = HERE.to(DEVICE)
    assert x.double().dtype == torch.float64
    device.missing.add(torch.float64)
    for convert in (x.double, lambda: HERE.double().to(DEVICE), lambda: x.sum(dtype=torch.float64)):
        with pytest.raises(TypeError, match=r"float64: lazy:0 does not have it, at .*test_standin_device.py"):
            convert()


def test_random_numbers_come_from_a_generator_of_the_device(device):
    torch.manual_seed(5)
    of_host, of_device = torch.get_rng_state(), torch.lazy.get_rng_state()
    first = torch.rand(3, device=DEVICE)
    assert torch.equal(torch.get_rng_state(), of_host)
    torch.lazy.set_rng_state(of_device)
    assert torch.equal(torch.rand(3, device=DEVICE), first)
    nn.functional.dropout(HERE.to(DEVICE))
    assert not torch.equal(torch.lazy.get_rng_state(), of_device)
    assert torch.equal(torch.get_rng_state(), of_host)


def test_a_copy_that_does_not_block_is_not_there_before_its_time(device):
    x = HERE.to(DEVICE)
    home = x.to("cpu", non_blocking=True)
    assert not device.of("sync")
    assert home.isnan().all()
    torch.lazy.synchronize()
    assert torch.equal(home, HERE)
    assert len(device.of("sync")) == 1


def test_a_source_that_is_overwritten_too_early_spoils_the_copy(device):
    source = HERE.clone()
    kept, spoilt = HERE.clone().to(DEVICE, non_blocking=True), source.to(DEVICE, non_blocking=True)
    source.zero_()
    assert torch.equal(kept.cpu(), HERE)
    assert not torch.equal(spoilt.cpu(), HERE)
