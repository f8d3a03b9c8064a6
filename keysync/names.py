"""Names as Azure compares them: without regard to the case of A to Z."""

from __future__ import annotations

import re
from typing import Final

_DIGITS: Final = re.compile(r"(\d+)")
_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def fold(name: str) -> str:
    """`name` with A to Z in lower case. Azure compares names and ids so: U+212A KELVIN SIGN, whose lower case is k, is no k."""
    return name.lower() if name.isascii() else name.translate(_LOWER)


def natural(text: str) -> tuple[tuple[int, str], ...]:
    """A sort key in natural order: farm2 before farm10, without regard to case."""
    parts = _DIGITS.split(fold(text))
    return tuple((int(part), "") if index % 2 else (-1, part) for index, part in enumerate(parts))
