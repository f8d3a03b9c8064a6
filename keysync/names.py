"""Compares and sorts names as Azure does: the case of A to Z is ignored."""

from __future__ import annotations

import re
from typing import Final

_DIGITS: Final = re.compile(r"(\d+)")
_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def fold(name: str) -> str:
    """`name` with A to Z in lower case; equal results mean equal names and ids in Azure.

    `str.lower` would be wrong: it turns U+212A KELVIN SIGN into k, which Azure does not.
    """
    return name.lower() if name.isascii() else name.translate(_LOWER)


def natural(text: str) -> tuple[tuple[int, str], ...]:
    """A sort key for natural order: farm2 before farm10. The case of A to Z is ignored."""
    parts = _DIGITS.split(fold(text))
    return tuple((int(part), "") if index % 2 else (-1, part) for index, part in enumerate(parts))
