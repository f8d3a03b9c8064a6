"""Ends of a write that are neither success nor plain failure."""

from __future__ import annotations

from keysync.failures import CallFailed, StaleRead


class WriteUnknown(CallFailed):
    """A write may have taken effect, or may do so later, and reading back does not show it; `record` is of the first failure."""


class WriteConflict(CallFailed):
    """The reply to a write was lost, and what stands there now is neither the old version nor ours."""


class ReadFromBefore(StaleRead):
    """Nothing was sent: the vault lists a later version than the one that it shows."""


class NotKept(CallFailed):
    """The vault accepted a change of a version and did not keep it."""
