"""Results of a write that are neither success nor an ordinary failure, and failures that are not Azure's own."""

from __future__ import annotations

from keysync.failures import CallFailed, FailureRecord, StaleRead


class WriteUnknown(CallFailed):
    """A write may have taken effect, or may do so later, but reading back does not show it. `record` is the first failure."""


class WriteConflict(CallFailed):
    """Another writer wrote: the latest version is neither the old one nor the one that keysync wrote."""


class LaterVersionListed(StaleRead):
    """Nothing was sent: the vault lists a later version than the one that it returns."""


class NotKept(CallFailed):
    """The vault accepted a change of a version but did not keep it."""


def conflict(summary: str, hint: str | None = None) -> FailureRecord:
    """Another writer, or the vault's own delay, came between a read and a write."""
    return FailureRecord(kind="conflict", summary=summary, hint=hint)


def unfinished(summary: str) -> FailureRecord:
    """The vault has not finished a change that it may still finish."""
    return FailureRecord(kind="timeout", summary=summary)
