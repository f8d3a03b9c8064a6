"""Accounts that discovery covered within the last day and no longer covers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

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


def no_longer_covered(
    before: Mapping[str, str], covered: Mapping[str, str], skipped: Iterable[SkippedAccount], now: float
) -> dict[str, Unserved]:
    """The accounts that were covered `before` and are not now (ARM ids by their lower case). `skipped` has the reasons."""
    missing = before.keys() - covered.keys()
    reasons = {fold(account.resource_id): account.reason for account in skipped} if missing else {}
    new = {_name(key): covered[key] for key in covered.keys() - before.keys()} if missing else {}
    unserved: dict[str, Unserved] = {}
    for key in missing:
        moved_to = new.get(_name(key))
        gone = _GONE if moved_to is None else f"it was moved: it is found as {moved_to} now"
        unserved[key] = Unserved(before[key], reasons.get(key, gone), now)
    return unserved


def _name(key: str) -> str:
    return key.rpartition("/")[2]
