"""Accounts that discovery covered within the last day and no longer covers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from keysync.config.model import Account
from keysync.names import fold
from keysync.sources.filters import SkippedAccount

_REMEMBERED_SECONDS: Final = 86_400.0
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

    _covered: Mapping[str, str] = field(default_factory=dict[str, str])
    _unserved: dict[str, Unserved] = field(default_factory=dict[str, Unserved])

    def update(self, accounts: Iterable[Account], skipped: Iterable[SkippedAccount], now: float) -> None:
        """Records the covered `accounts`; the reason for a missing one comes from `skipped`."""
        covered = {account.key: account.resource_id for account in accounts}
        missing = self._covered.keys() - covered.keys()
        if missing:
            reasons = {fold(account.resource_id): account.reason for account in skipped}
            new = {_name(key): covered[key] for key in covered.keys() - self._covered.keys()}
            for key in missing:
                moved_to = new.get(_name(key))
                gone = _GONE if moved_to is None else f"it was moved: it is found as {moved_to} now"
                self._unserved[key] = Unserved(self._covered[key], reasons.get(key, gone), now)
        self._unserved = {key: account for key, account in self._unserved.items() if key not in covered}
        self._covered = covered

    def recent(self, now: float) -> tuple[Unserved, ...]:
        """The accounts of the last day, sorted by id."""
        self._unserved = {
            key: account for key, account in self._unserved.items() if now - account.since < _REMEMBERED_SECONDS
        }
        return tuple(self._unserved[key] for key in sorted(self._unserved))

    def inherit(self, earlier: UnservedAccounts, covered: Mapping[str, str], *, remember: bool) -> None:
        """Expects `covered` (ARM ids by their lower case) in the next result. Takes over what `earlier` remembers if `remember`."""
        self._covered = covered
        self._unserved = dict(earlier._unserved) if remember else {}


def _name(key: str) -> str:
    return key.rpartition("/")[2]
