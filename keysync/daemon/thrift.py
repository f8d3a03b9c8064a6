"""Gives back to the system what the C library keeps of freed memory: it gives back by itself only what lies at the end."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


def give_back() -> None:
    """Gives back whatever pages are free; does nothing where the C library has no ``malloc_trim``, which is glibc's."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:  # noqa: ANN401  # a function of a library has no type
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
