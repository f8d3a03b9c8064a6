"""Gives back to the system what the C library keeps of freed memory: it gives back by itself only what lies at the end."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Final

_ARENA_MAX: Final = -8  # M_ARENA_MAX of malloc.h


def trim_heap() -> None:
    """Gives back whatever pages are free; does nothing where the C library has no ``malloc_trim``, which is glibc's."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def limit_arenas() -> None:
    """Has threads that are begun from now on take memory from where all others do; does nothing where the C library is not glibc.

    It would have each keep some of its own, so that they need not wait for one another. Here they do anyway. This wins over
    MALLOC_ARENA_MAX.
    """
    choose = _function("mallopt")
    if choose is not None:
        choose(_ARENA_MAX, 1)


@cache
def _function(name: str) -> Any:  # noqa: ANN401  # a function of a library has no type
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
