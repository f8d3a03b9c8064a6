"""Accounts that discovery served and does not serve any more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from keysync.config.settings import Account
from keysync.names import fold
from keysync.sources.filters import SkippedAccount

REMEMBERED_SECONDS: Final = 86_400.0
_GONE: Final = "it was deleted, or no entry of `discover` matches it any more"


@dataclass(frozen=True, slots=True)
class Unserved:
    """One such account: its ARM id, why, and since when (monotonic, in seconds)."""

    account: str
    reason: str
    since: float


@dataclass(slots=True)
class ServedAccounts:
    """Compares what a listing serves with what the one before served.

    An account that is missing is remembered for a day, or until it is served again.
    """

    _accounts: Sequence[Account] = ()
    _unserved: dict[str, Unserved] = field(default_factory=dict)

    def update(self, accounts: Sequence[Account], skipped: Iterable[SkippedAccount], now: float) -> None:
        """`accounts` are served from `now` on; `skipped` says why others are not."""
        served, known = {account.key for account in accounts}, {account.key for account in self._accounts}
        missing = [account for account in self._accounts if account.key not in served]
        if missing:
            reasons = {fold(one.resource_id): one.reason for one in skipped}
            found = {fold(account.name): account.resource_id for account in accounts if account.key not in known}
            for account in missing:
                reason = reasons.get(account.key) or _where(account, found)
                self._unserved[account.key] = Unserved(account.resource_id, reason, now)
        self._unserved = {key: one for key, one in self._unserved.items() if key not in served}
        self._accounts = accounts

    def recent(self, now: float) -> tuple[Unserved, ...]:
        """Those of the last day, in the order of their ids."""
        self._unserved = {key: one for key, one in self._unserved.items() if now - one.since < REMEMBERED_SECONDS}
        return tuple(self._unserved[key] for key in sorted(self._unserved))

    def inherit(self, earlier: ServedAccounts, accounts: Sequence[Account], *, remember: bool) -> None:
        """Expects that `accounts`, served until now, are served on; takes over what `earlier` remembers if `remember`."""
        self._accounts = accounts
        self._unserved = dict(earlier._unserved) if remember else {}


def _where(account: Account, found: Mapping[str, str]) -> str:
    place = found.get(fold(account.name))
    return _GONE if place is None else f"it was moved: it is found as {place} now"
