"""The interface of a source of keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from keysync.secret.value import SecretValue

KeyName: TypeAlias = Literal["primary", "secondary"]
KEY_NAMES: tuple[KeyName, KeyName] = ("primary", "secondary")


@dataclass(frozen=True, slots=True)
class AccountKeys:
    """The keys of an account: valid ones by name in `values`, and the reason for each other one in `refused`."""

    values: Mapping[KeyName, SecretValue]
    refused: Mapping[KeyName, str] = field(default_factory=dict[KeyName, str])


class KeySource(Protocol):
    """One account's keys."""

    async def get_keys(self) -> AccountKeys:
        """Requests both keys. Raises CallFailed."""
        ...

    async def probe(self) -> None:
        """Reads the account without its keys, for `keysync check`. Raises CallFailed."""
        ...
