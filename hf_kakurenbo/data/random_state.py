"""The state of the random generators that data loading and transforms draw from."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

# Their generator functions take no device, or the one that is in use by default.
_ONE_DEVICE = ("mps", "xla")


@dataclass(frozen=True)
class RandomState:
    """The global CPU generators of Python, NumPy and PyTorch at one moment."""

    python: Any
    numpy: Any
    torch: torch.Tensor

    @classmethod
    def capture(cls) -> RandomState:
        """The state now."""
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state())

    def restore(self) -> None:
        """Set the generators back to this state."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)

    def to_json(self) -> str:
        """As text, about 20 kB."""
        name, keys, *rest = self.numpy
        return json.dumps({"python": self.python, "numpy": [name, keys.tolist(), *rest], "torch": self.torch.tolist()})

    @classmethod
    def from_json(cls, text: str) -> RandomState:
        """From what `to_json` gave."""
        state = json.loads(text)
        version, keys, gauss = state["python"]
        name, numpy_keys, *rest = state["numpy"]
        return cls(
            (version, tuple(keys), gauss),
            (name, np.array(numpy_keys, dtype=np.uint32), *rest),
            torch.tensor(state["torch"], dtype=torch.uint8),
        )


@contextmanager
def untouched_random_state(device: torch.device | str = "cpu") -> Iterator[None]:
    """Leave every random generator as it was: those of the CPU, and that of `device`.

    Of a device whose generator has no state that can be read, only those of the CPU.
    """
    with ExitStack() as afterwards:
        afterwards.callback(_restoring_generator_of(torch.device(device)))
        afterwards.callback(RandomState.capture().restore)
        yield


def _restoring_generator_of(device: torch.device) -> Callable[[], Any]:
    """What sets the generator of a device that is not the CPU back to its present state."""
    functions = _state_functions(device.type)
    if functions is None:
        return lambda: None
    read, write = functions
    if device.type in _ONE_DEVICE:
        return partial(write, read())
    return partial(write, read(device), device)


def _state_functions(device_type: str) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """The functions that read and write the state of a device's generator, if it has any."""
    # PyTorch/XLA is no `torch.xla`. A plugin's device (NPU, MLU, HPU) is a module of `torch` once it is imported.
    module: Any = getattr(torch, device_type, None)
    if device_type == "xla":
        module = sys.modules.get("torch_xla.core.xla_model")
    owners: list[Any] = [module, getattr(module, "random", None)]
    for owner in owners:
        if hasattr(owner, "get_rng_state") and hasattr(owner, "set_rng_state"):
            return owner.get_rng_state, owner.set_rng_state
    return None
