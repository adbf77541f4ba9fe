"""On what the figures were measured."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from typing import Any

import torch
from _report import processor

from hf_kakurenbo import __version__

_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "numba", "numpy")


def environment(rehearses: bool) -> dict[str, Any]:
    """Device, driver and releases, as JSON holds them.

    Raises:
        SystemExit: there is no GPU, and it is no rehearsal.
    """
    if not (rehearses or torch.cuda.is_available()):
        raise SystemExit("PyTorch finds no GPU here. --rehearse runs the same code on the CPU, small.")
    return {
        "rehearsal": rehearses,
        **({"device": processor(), "cores": os.cpu_count()} if rehearses else _gpu()),
        "Python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
        "hf_kakurenbo": __version__,
    }


def _gpu() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "memory, GB": round(properties.total_memory / 1e9),
        "capability": f"{properties.major}.{properties.minor}",
        "driver": _driver(),
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
        "cores": os.cpu_count(),
    }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"
