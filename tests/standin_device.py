"""A second device that is the CPU, so that mistakes with devices are found on a machine without a GPU.

Its tensors hold a CPU tensor each, and differ from it as CUDA's would: they do not mix with CPU tensors, they have to
be copied back to be read, and random numbers come from a generator of the device's own. [`StandIn`] runs them, and
notes each kernel, each copy and each synchronisation with the line of code that caused it.

The name of the device is `lazy`, a device type of PyTorch's that no wheel has kernels for. Of all types it is the one
that serves. Autograd runs its kernels in the calling thread; for `cuda`, `xpu`, `hpu`, `mtia` or `privateuseone` it
looks for a driver, and where there is none the process ends. Nothing in Transformers or Accelerate knows it, as they
know `meta`. And nothing has to be registered, which would last for the process: PyTorch's own test device,
`torch_openreg`, is C++ that no wheel contains, and a backend written in Python takes `privateuseone` for good. What it
takes of PyTorch is `_make_wrapper_subclass`, `TorchDispatchMode` and the tags of operators.

What it is not: an operator counts as one kernel, however many CUDA would launch for it; one that runs on the CPU is
taken to run on CUDA; nothing is known of streams other than the current one; and `torch.autocast` does not know the
device, so half precision is tested with models that compute in it.
"""

from __future__ import annotations

import linecache
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import hf_kakurenbo

DEVICE = torch.device("lazy:0")
OTHER_DEVICE = torch.device("lazy:1")

PACKAGE = str(Path(hf_kakurenbo.__file__).parent)
_NOT_A_CAUSE = (str(Path(torch.__file__).parent), __file__)

aten = torch.ops.aten
_INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
# A CPU tensor without dimensions is as good as a number in most operators; in these it is not.
_STRICT = (aten.cat.default, aten.stack.default)
# Beside views: what only allocates, or gives a name.
_NO_KERNEL = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "_unsafe_view")


@dataclass(frozen=True)
class Event:
    """Something that the device did, or that the host had to wait for.

    Args:
        kind: `"kernel"`, `"copy"` between host and device, or `"sync"`: the host waits for a result of the device.
        operator: its name in PyTorch.
        cause: the innermost line outside PyTorch.
        line: the innermost line in hf_kakurenbo, or None.
        phase: what the tests call the moment.
        direction: of a copy, `"to device"` or `"to host"`.
        nbytes: of a copy.
        dtype: of a copy.
        waits: whether the host waits for it: a sync, or a copy that is not `non_blocking`.
    """

    kind: str
    operator: str
    cause: str
    line: str | None
    phase: Any
    direction: str = ""
    nbytes: int = 0
    dtype: torch.dtype | None = None
    waits: bool = False

    def __str__(self) -> str:
        what = f"{self.kind} {self.direction} {self.nbytes} bytes" if self.kind == "copy" else self.kind
        lines = [_quoted(self.cause)] + ([_quoted(self.line)] if self.line not in (None, self.cause) else [])
        return f"{what} {self.operator} at " + ", from ".join(lines)


def report(events: Iterable[Event]) -> str:
    """Events with the lines that caused them, one line each, for the message of an assertion."""
    counted = Counter(map(str, events))
    return "\n" + "\n".join(f"{count} × {what}" for what, count in counted.most_common())


class OnDevice(torch.Tensor):
    """A tensor of the stand-in device; `held` is the CPU tensor in it."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, device: torch.device) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=device,
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"A tensor of the stand-in device is used while no StandIn is active: {func}.")

    # What PyTorch does in C++, past every operator, where a tensor is of CUDA.
    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy it first.")

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def __repr__(self, **kwargs: Any) -> str:
        return f"OnDevice({self.held!r}, device={self.device})"


class StandIn(TorchDispatchMode):
    """The device, while it is entered.

    Attributes:
        events: what happened, in order.
        phase: what is noted in each event as its moment.
        rng_state: of the device's generator.
        missing: dtypes that the device does not have: MPS has no float64.
        entered: the one that is entered.
    """

    entered: StandIn | None = None

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.phase: Any = None
        self.missing: set[torch.dtype] = set()
        self.rng_state = torch.Generator().manual_seed(seed).get_state()
        self._due_on_device: list[tuple[Tensor, Tensor]] = []
        self._due_on_host: list[tuple[Tensor, Tensor]] = []

    def of(self, kind: str, **attributes: Any) -> list[Event]:
        """The events of a kind, with these attributes."""
        chosen = [event for event in self.events if event.kind == kind]
        return [event for event in chosen if all(getattr(event, name) == value for name, value in attributes.items())]

    def synchronize(self) -> None:
        """Wait until everything is done."""
        self._wait("synchronize")

    def __enter__(self) -> StandIn:
        StandIn.entered = self
        # Else `torch.tensor(..., device=...)` goes to the device past every mode, as FakeTensorMode has it too.
        self._lifted_only = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(self._lifted_only)
        super().__exit__(*error)
        StandIn.entered = None

    # ---- Operators ----

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves: list[Tensor] = []
        _mapped((args, kwargs), leaves.append)
        asked = kwargs.get("device")
        if not any(isinstance(leaf, OnDevice) for leaf in leaves) and not _is_of_standin(asked):
            return func(*args, **kwargs)
        if func is aten._to_copy.default and asked is not None and args[0].device != _whole(asked):
            return self._copied(func, args[0], kwargs)
        if func is aten.copy_.default and args[0].device != args[1].device:
            return self._copy_into(args[0], args[1], len(args) > 2 and args[2])
        here = self._one_device(func, args, leaves)
        return self._run(func, leaves, args, kwargs, here if asked is None else _whole(asked))

    def _run(self, func: Any, leaves: list[Tensor], args: Any, kwargs: Any, target: torch.device) -> Any:
        self._arrive_on_device()
        held_args, held_kwargs = _mapped((args, kwargs), _held)
        if "device" in held_kwargs:
            held_kwargs["device"] = torch.device("cpu")
        with self._own_generator(func, kwargs):
            returned = func(*held_args, **held_kwargs)
        if _waits_for_values(func, args, kwargs):
            self._wait(str(func))
        elif _is_kernel(func):
            self._note("kernel", str(func))
        if not _is_of_standin(target):
            return returned
        # What an operator writes into stays the tensor that it was.
        known = {id(leaf.held): leaf for leaf in leaves if isinstance(leaf, OnDevice)}
        return _mapped(returned, lambda held: known[id(held)] if id(held) in known else self._made(held, target))

    def _made(self, held: Tensor, device: torch.device) -> OnDevice:
        if held.dtype in self.missing:
            places = ", from ".join(_quoted(place) for place in _where() if place)
            raise TypeError(f"Cannot convert a tensor to {held.dtype}: {device} does not have it, at {places}")
        return OnDevice(held, device)

    def _one_device(self, func: Any, args: Any, leaves: list[Tensor]) -> torch.device:
        """The device on which an operator runs; an error if its tensors are on several, as CUDA's operators raise it.

        Its indices may be on the CPU, from where they are copied.
        """
        tensors = leaves
        if func in _INDEXING and isinstance(args[0], OnDevice):
            for index in args[1]:
                if index is not None and not isinstance(index, OnDevice):
                    self._note_copy(str(func), "to device", index, waits=True)
                    tensors = [tensor for tensor in tensors if tensor is not index]
        writes_on_host = func._schema.is_mutable and bool(args) and isinstance(args[0], Tensor)
        numbers = [
            tensor
            for tensor in tensors
            if tensor.ndim == 0 and tensor.device.type == "cpu" and func not in _STRICT
            if not (writes_on_host and tensor is args[0])
        ]
        devices = list(dict.fromkeys(t.device for t in tensors if not any(t is number for number in numbers)))
        if len(devices) > 1:
            cause, line = _where()
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {devices[0]} and "
                f"{devices[1]}, in {func} at {_quoted(cause)}" + (f", from {_quoted(line)}" if line else "")
            )
        return devices[0] if devices else DEVICE

    @contextmanager
    def _own_generator(self, func: Any, kwargs: Any) -> Iterator[None]:
        if torch.Tag.nondeterministic_seeded not in func.tags:
            yield
            return
        if kwargs.get("generator") is not None:
            raise RuntimeError(f"Expected a 'lazy' device type for generator but found 'cpu', in {func}")
        of_host = torch.get_rng_state()
        torch.set_rng_state(self.rng_state)
        try:
            yield
        finally:
            self.rng_state = torch.get_rng_state()
            torch.set_rng_state(of_host)

    # ---- Copies: what does not block is done as late as it may be, and what is read before that is spoilt ----

    def _copied(self, func: Any, source: Tensor, kwargs: dict[str, Any]) -> Tensor:
        target, late = _whole(kwargs["device"]), bool(kwargs.get("non_blocking"))
        plain = {**kwargs, "device": torch.device("cpu"), "non_blocking": False}
        if isinstance(source, OnDevice):
            self._arrive_on_device()
        made = func(_held(source), **plain)
        self._finish_copy(func, source, made, target, late)
        return self._made(made, target) if _is_of_standin(target) else made

    def _copy_into(self, target: Tensor, source: Tensor, late: bool) -> Tensor:
        self._arrive_on_device()
        made = _held(target)
        made.copy_(_held(source))
        self._finish_copy(aten.copy_.default, source, made, target.device, late)
        return target

    def _finish_copy(self, func: Any, source: Tensor, made: Tensor, target: torch.device, late: bool) -> None:
        to_host = not _is_of_standin(target)
        if isinstance(source, OnDevice) and not to_host:
            self._note("kernel", str(func))  # from one device to the other
            return
        self._note_copy(str(func), "to host" if to_host else "to device", made, waits=not late)
        if not late:
            self._arrive_on_host()
        elif to_host:
            self._due_on_host.append((made, made.clone()))
            _spoil(made)
        elif source.dtype == made.dtype:
            self._due_on_device.append((made, source))
            _spoil(made)

    def _arrive_on_device(self) -> None:
        """Copies to the device are done in its order, before the next kernel: the source must still be what it was."""
        due, self._due_on_device = self._due_on_device, []
        for made, source in due:
            made.copy_(source)

    def _arrive_on_host(self) -> None:
        due, self._due_on_host = self._due_on_host, []
        for made, value in due:
            made.copy_(value)

    def _wait(self, operator: str) -> None:
        self._note("sync", operator, waits=True)
        self._arrive_on_host()

    # ---- Notes ----

    def _note(self, kind: str, operator: str, **attributes: Any) -> None:
        self.events.append(Event(kind, operator, *_where(), phase=self.phase, **attributes))

    def _note_copy(self, operator: str, direction: str, tensor: Tensor, waits: bool) -> None:
        nbytes = tensor.numel() * tensor.element_size()
        self._note("copy", operator, direction=direction, nbytes=nbytes, dtype=tensor.dtype, waits=waits)


# What `torch.cuda` is to CUDA. PyTorch asks for it once in a process.
MODULE = SimpleNamespace(
    device_count=lambda: 2,
    get_rng_state=lambda device=None: StandIn.entered.rng_state.clone(),
    set_rng_state=lambda state, device=None: setattr(StandIn.entered, "rng_state", state.clone()),
    synchronize=lambda device=None: StandIn.entered.synchronize(),
)


def _whole(device: Any) -> torch.device:
    device = torch.device(device)
    return DEVICE if device.type == DEVICE.type and device.index is None else device


def _is_of_standin(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _mapped(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """Arguments, or what an operator returns, with each tensor replaced."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (tuple, list)):
        return type(value)(_mapped(item, function) for item in value)
    if isinstance(value, dict):
        return {name: _mapped(item, function) for name, item in value.items()}
    return value


def _held(tensor: Tensor) -> Tensor:
    return tensor.held if isinstance(tensor, OnDevice) else tensor


@cache
def _is_kernel(func: Any) -> bool:
    """Neither a view nor an allocation."""
    infos = [argument.alias_info for argument in func._schema.arguments]
    views = any(info is not None and not info.is_write for info in infos)
    return not views and func._schema.name.removeprefix("aten::") not in _NO_KERNEL


def _waits_for_values(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether the shape or the value of what is returned depends on values, which the host has to wait for."""
    if func in _INDEXING:
        masked = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
        # A single number is written under a mask without knowing where the mask is true.
        return masked and (func is aten.index.Tensor or args[2].numel() != 1)
    if func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is not None:
        return False
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


def _spoil(tensor: Tensor) -> None:
    tensor.fill_(torch.nan if tensor.is_floating_point() else 0 if tensor.dtype == torch.bool else -(2**7))


def _where() -> tuple[str, str | None]:
    """The innermost line outside PyTorch, and the innermost one in the package."""
    frame: Any = sys._getframe(1)
    cause = None
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_NOT_A_CAUSE):
            cause = cause or f"{name}:{frame.f_lineno}"
            if name.startswith(PACKAGE):
                return cause, f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return cause or "nowhere", None


def _quoted(place: str) -> str:
    name, _, number = place.rpartition(":")
    shown = (
        Path(name).relative_to(Path(PACKAGE).parent) if name.startswith(PACKAGE) else "/".join(Path(name).parts[-2:])
    )
    return f"{shown}:{number} `{linecache.getline(name, int(number)).strip()}`" if number.isdigit() else place
