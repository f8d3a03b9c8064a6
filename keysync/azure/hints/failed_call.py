"""The facts of a failed call that a hint depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from keysync.azure.sign_in import SignIn

ROLE_DELAY: Final = "(it takes effect after some minutes)"
"""Ends a hint to assign a role."""


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A failed call. `codes` are in lower case; `scope` is the account's ARM id or the vault's URL."""

    kind: str
    status: int | None
    codes: frozenset[str]
    message: str
    operation: str
    scope: str
    sign_in: SignIn
