"""Everything that knows `transformers.Trainer`, one concern per file; `mixin.py` says which hook leads where."""

from .mixin import KakurenboMixin, KakurenboTrainer

__all__ = ["KakurenboMixin", "KakurenboTrainer"]
