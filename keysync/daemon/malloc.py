"""Settings of glibc's malloc: return free pages to the system, and share one arena among threads."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Final

_ARENA_MAX: Final = -8  # M_ARENA_MAX of malloc.h


def trim_heap() -> None:
    """Returns free pages to the system. glibc does that by itself only for pages at the end of the heap.

    Does nothing if the C library has no ``malloc_trim`` (musl).
    """
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def limit_arenas() -> None:
    """Makes threads that start later share one arena of memory. Does nothing if the C library is not glibc.

    glibc gives each thread an arena to avoid lock contention. The daemon's threads rarely run at once, and each arena keeps
    free memory. This call overrides MALLOC_ARENA_MAX.
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
