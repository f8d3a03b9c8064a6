"""What the sync asks of a source of keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from keysync.secret.value import SecretValue

KeyName: TypeAlias = Literal["primary", "secondary"]
KEY_NAMES: tuple[KeyName, KeyName] = ("primary", "secondary")


@dataclass(frozen=True, slots=True)
class AccountKeys:
    """The keys that an account gave: usable ones by name, and for each of the others why it must not be written."""

    values: Mapping[KeyName, SecretValue]
    refused: Mapping[KeyName, str] = field(default_factory=dict)


class KeySource(Protocol):
    """One account's keys."""

    async def get_keys(self) -> AccountKeys:
        """Asks for both keys now. Raises CallFailed."""
        ...

    async def probe(self) -> None:
        """Reads the account without its keys, for the doctor. Raises CallFailed."""
        ...
