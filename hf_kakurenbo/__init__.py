"""Train on fewer samples with Hugging Face: `KakurenboTrainer` hides, epoch by epoch, what the model already knows.

Beside it, labelled images computed from formulas: `load_fdsl`, and `datasets.load_dataset("fdsl", name)`, which this
import makes known.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._compat import require_supported_transformers
from ._version import __version__
from .fdsl.loading.registration import register
from .utils.moved import find_moved

require_supported_transformers()
register()
find_moved()

if TYPE_CHECKING:
    from .config import HidingArguments, KakurenboConfig
    from .fdsl import list_fdsl, load_fdsl
    from .hiding import SampleLedger, SampleStatistics, load_ledger
    from .trainer import KakurenboMixin, KakurenboTrainer

__all__ = [
    "HidingArguments",
    "KakurenboConfig",
    "KakurenboMixin",
    "KakurenboTrainer",
    "SampleLedger",
    "SampleStatistics",
    "__version__",
    "list_fdsl",
    "load_fdsl",
    "load_ledger",
]

# Loaded on first use: `transformers.Trainer` imports torchvision where it is installed, and this import stays light.
_HOMES = {
    "HidingArguments": "config",
    "KakurenboConfig": "config",
    "KakurenboMixin": "trainer",
    "KakurenboTrainer": "trainer",
    "SampleLedger": "hiding",
    "SampleStatistics": "hiding",
    "list_fdsl": "fdsl",
    "load_fdsl": "fdsl",
    "load_ledger": "hiding",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
