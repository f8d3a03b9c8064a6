"""Accounts with the same key. No two Batch accounts share a key, so one of the two replies must be wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from keysync.secret.fingerprint import Fingerprint
from keysync.sync.model import Change


class SharedKeys:
    """Compares the keys of each account with those of the accounts before it.

    `untrusted` are the accounts (ARM ids) that share a key, with the reason not to write their keys.
    """

    def __init__(self) -> None:
        self._owners: dict[int, str] = {}
        self.untrusted: dict[str, str] = {}

    def add(self, account: str, keys: Iterable[Fingerprint]) -> None:
        """Compares the keys of one more account."""
        for key in keys:
            # A hash of 64 bits takes less memory than the fingerprint, and two keys hardly ever have the same.
            owner = self._owners.setdefault(hash(key), account)
            if owner != account:
                self.untrusted.setdefault(owner, _reason(account))
                self.untrusted.setdefault(account, _reason(owner))


def refused(change: Change, untrusted: Mapping[str, str]) -> Change:
    """`change`, refused if its account is in `untrusted`. It still counts as managed, for the limits."""
    ref = change.ref
    if ref.account not in untrusted or change.kind in {"failed", "refused"}:
        return change
    return Change(ref, "refused", reason=untrusted[ref.account], before=change.before, managed=change.managed)


def _reason(other: str) -> str:
    return f"the service gave the same key for {other}, so one of the two replies is wrong: not written"
