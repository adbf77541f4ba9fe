"""Packages that only a comparison needs."""

from __future__ import annotations

from functools import partial

from ..utils import extras

_COMPARISON = ("A comparison", "compare")

requires_extra = partial(extras.requires_extra, *_COMPARISON)
"""Around imports: see `utils.extras.requires_extra`."""

require_extra = partial(extras.require_extra, *_COMPARISON, ("matplotlib", "scipy", "sklearn"))
"""Find out before the first training whether everything is installed that is needed after the last."""
