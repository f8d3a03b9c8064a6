"""The interface of a source of keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from keysync.config.model import Account
from keysync.secret.value import SecretValue

KeyName: TypeAlias = str
"""The name of a key, as its source spells it."""


@dataclass(frozen=True, slots=True)
class AccountKeys:
    """The keys of an account: valid ones by name in `values`, and the reason for each other one in `refused`."""

    values: Mapping[KeyName, SecretValue]
    refused: Mapping[KeyName, str] = field(default_factory=dict[KeyName, str])


class KeySource(Protocol):
    """One account's keys."""

    @property
    def key_names(self) -> tuple[KeyName, ...]:
        """The names of the keys of such an account, in the order of reports."""
        ...

    async def get_keys(self) -> AccountKeys:
        """Requests all keys. Raises CallFailed."""
        ...

    async def probe(self) -> None:
        """Reads the account without its keys, for `keysync check`. Raises CallFailed."""
        ...


class KeySources(Protocol):
    """The key sources of one configuration."""

    @property
    def key_names(self) -> tuple[KeyName, ...]:
        """The key names of every account."""
        ...

    async def cover(self, accounts: Sequence[Account]) -> None:
        """Opens what the sources of `accounts` need, and forgets what no account needs any more. Raises UsageError."""
        ...

    def snapshot(self) -> Callable[[Account], KeySource]:
        """A function from a covered account to its source. Later calls of `cover` do not change it."""
        ...
