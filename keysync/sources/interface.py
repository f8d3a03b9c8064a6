"""The interface of a source of keys, and a source that several callers share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
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


@dataclass(frozen=True, slots=True)
class SignInReply:
    """The service's answer to a call that was signed with a key.

    `status` and `code` are of a refusal. `ahead` is how far this machine's clock is ahead of the service's.
    """

    accepted: bool
    status: int | None = None
    code: str | None = None
    ahead: timedelta | None = None


class KeySource(Protocol):
    """One account's keys."""

    async def get_keys(self) -> AccountKeys:
        """Requests all keys. Raises CallFailed."""
        ...

    async def probe(self) -> None:
        """Reads the account without its keys, for `keysync check`. Raises CallFailed."""


class KeySources(Protocol):
    """The key sources of one configuration.

    `key_names` are those of every account. New secrets have the `content_type`, unless the configuration has one.
    """

    key_names: tuple[KeyName, ...]
    content_type: str

    async def cover(self, accounts: Sequence[Account]) -> None:
        """Opens what the sources of `accounts` need, and forgets what no account needs any more. Raises UsageError."""

    def source_of(self, account: Account) -> KeySource:
        """The source of a covered account."""
        ...


class SingleFlightSource:
    """A `KeySource` that calls `inner` once; all callers get the same keys or the same failure.

    If all waiting callers are cancelled, the call is cancelled too. After `callers` calls of `get_keys` the result is dropped,
    so that key values stay in memory no longer than needed.
    """

    def __init__(self, inner: KeySource, callers: int) -> None:
        self.probe = inner.probe
        self._inner = inner
        self._remaining = callers
        self._call: asyncio.Task[AccountKeys] | None = None
        self._waiting = 0

    async def get_keys(self) -> AccountKeys:
        """The keys as of the first call. Raises CallFailed."""
        call = self._call = self._call or asyncio.create_task(self._inner.get_keys())
        self._waiting += 1
        try:
            return await asyncio.shield(call)
        finally:
            self._waiting -= 1
            self._remaining -= 1
            if not self._waiting and not call.done():
                call.cancel()
                self._call = None  # a later caller starts a new call
            if self._remaining <= 0:
                self._call = None
