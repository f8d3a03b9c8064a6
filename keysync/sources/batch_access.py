"""Creates the key sources of Batch accounts. Accounts with the same subscription and credential share a client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from azure.mgmt.batch.aio import BatchManagementClient

from keysync.azure.retry import Caller
from keysync.config.model import Account, Credential
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.redact import Redactor
from keysync.sources.azure_batch import KEY_NAMES, BatchAccount
from keysync.sources.interface import KeyName


@dataclass(frozen=True, slots=True)
class BatchAccess:
    """The client of one subscription and credential, and the caller that limits its calls."""

    client: BatchManagementClient
    caller: Caller


AccessKey: TypeAlias = tuple[str, Credential | None]
"""Subscription and credential of an account."""


def access_key(account: Account) -> AccessKey:
    """The key of the `BatchAccess` that `account` shares."""
    return account.subscription_id, account.credential


class BatchSources:
    """Creates the `KeySource` of each covered account.

    `open_access` opens the client of a subscription and credential; it may raise UsageError. `keyless` is as in `BatchAccount`.
    """

    def __init__(
        self,
        open_access: Callable[[str, Credential | None], Awaitable[tuple[BatchManagementClient, Caller]]],
        *,
        fingerprinter: Fingerprinter,
        redactor: Redactor,
        keyless: set[str],
    ) -> None:
        self._open_access = open_access
        self._fingerprinter = fingerprinter
        self._redactor = redactor
        self._keyless = keyless
        self.accesses: Mapping[AccessKey, BatchAccess] = {}

    @property
    def key_names(self) -> tuple[KeyName, ...]:
        """The keys of a Batch account."""
        return KEY_NAMES

    async def cover(self, accounts: Iterable[Account]) -> None:
        """Opens missing accesses for `accounts` and forgets unused ones. Raises UsageError."""
        accesses: dict[AccessKey, BatchAccess] = {}
        for key in dict.fromkeys(access_key(account) for account in accounts):
            accesses[key] = self.accesses.get(key) or BatchAccess(*await self._open_access(*key))
        self.accesses = accesses

    def snapshot(self) -> Callable[[Account], BatchAccount]:
        """A function from a covered account to its source. Later calls of `cover` do not change it."""
        accesses = self.accesses

        def source_of(account: Account) -> BatchAccount:
            # Created on demand: thousands of sources would take more memory than the rest of a run.
            access = accesses[access_key(account)]
            return BatchAccount(
                account,
                access.client,
                access.caller,
                fingerprinter=self._fingerprinter,
                redactor=self._redactor,
                keyless=self._keyless,
            )

        return source_of
