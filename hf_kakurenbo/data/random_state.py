"""The state of the random generators that data loading and transforms draw from."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


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
    """Leave every random generator as it was: those of the CPU, and that of `device`."""
    device = torch.device(device)
    with ExitStack() as afterwards:
        if device.type == "mps":  # has one device, and generator functions that take none
            afterwards.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
        elif device.type != "cpu":
            afterwards.enter_context(torch.random.fork_rng([device], device_type=device.type))
        afterwards.callback(RandomState.capture().restore)
        yield
