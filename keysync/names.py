"""Names as Azure compares them: without regard to the case of A to Z."""

from __future__ import annotations

from typing import Final

_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def fold(name: str) -> str:
    """`name` with A to Z in lower case. Azure compares names and ids so: U+212A KELVIN SIGN, whose lower case is k, is no k."""
    return name.lower() if name.isascii() else name.translate(_LOWER)
