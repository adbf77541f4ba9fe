"""How the loops over points, lines and pixels are compiled."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from numba import njit

Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(loop: Loop) -> Loop:
    """Compile a function on its first call, without the GIL, and keep what is compiled on disk where that is possible.

    Numba keeps it in `NUMBA_CACHE_DIR`, beside the module, or in the user's cache folder, and refuses to compile where
    it may write into none of them, as in a read-only container. Then each process compiles for itself, and the first
    such function of a process warns.

    Args:
        loop: a function that Numba compiles, without Python objects.

    Returns:
        Numba's dispatcher, which is called as the function is.
    """
    try:
        return njit(cache=True, nogil=True)(loop)
    except RuntimeError as error:
        if "cannot cache function" not in str(error):
            raise
    _warn_once()
    return njit(nogil=True)(loop)


@cache
def _warn_once() -> None:
    warnings.warn(
        "Numba may write neither beside hf_kakurenbo nor into the user's cache folder, so every process compiles the "
        "drawing of FDSL images anew, which takes seconds. Set the environment variable NUMBA_CACHE_DIR to a folder "
        "that can be written to.",
        stacklevel=3,
    )
