"""Accounts that discovery covered within the last day and no longer covers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from keysync.config.model import Account
from keysync.names import fold
from keysync.sources.filters import SkippedAccount

REMEMBERED_SECONDS: Final = 86_400.0
_GONE: Final = "it was deleted, or no entry of `discover` matches it any more"


@dataclass(frozen=True, slots=True)
class Unserved:
    """An account that is no longer covered: its ARM id, the reason, and the monotonic time in seconds when that began."""

    account: str
    reason: str
    since: float


@dataclass(slots=True)
class UnservedAccounts:
    """Compares each result of discovery with the one before. A missing account is remembered for a day, or until it is back."""

    _accounts: Sequence[Account] = ()
    _unserved: dict[str, Unserved] = field(default_factory=dict[str, Unserved])

    def update(self, accounts: Sequence[Account], skipped: Iterable[SkippedAccount], now: float) -> None:
        """Records the covered `accounts`; the reason for a missing one comes from `skipped`."""
        covered, known = {account.key for account in accounts}, {account.key for account in self._accounts}
        missing = [account for account in self._accounts if account.key not in covered]
        if missing:
            reasons = {fold(account.resource_id): account.reason for account in skipped}
            new = {fold(account.name): account.resource_id for account in accounts if account.key not in known}
            for account in missing:
                reason = reasons.get(account.key) or _moved_or_gone(account, new)
                self._unserved[account.key] = Unserved(account.resource_id, reason, now)
        self._unserved = {key: account for key, account in self._unserved.items() if key not in covered}
        self._accounts = accounts

    def recent(self, now: float) -> tuple[Unserved, ...]:
        """The accounts of the last day, sorted by id."""
        self._unserved = {
            key: account for key, account in self._unserved.items() if now - account.since < REMEMBERED_SECONDS
        }
        return tuple(self._unserved[key] for key in sorted(self._unserved))

    def inherit(self, earlier: UnservedAccounts, accounts: Sequence[Account], *, remember: bool) -> None:
        """Expects `accounts`, covered until now, in the next result. Takes over what `earlier` remembers if `remember`."""
        self._accounts = accounts
        self._unserved = dict(earlier._unserved) if remember else {}


def _moved_or_gone(account: Account, new: Mapping[str, str]) -> str:
    moved_to = new.get(fold(account.name))
    return _GONE if moved_to is None else f"it was moved: it is found as {moved_to} now"
