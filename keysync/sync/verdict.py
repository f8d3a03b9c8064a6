"""The verdict: a stored value compared with both keys of its account, and with the account's other secret."""

from __future__ import annotations

from keysync.sync.model import ItemObservation, Observed, Verdict
from keysync.sync.ownership import is_ours
from keysync.targets.interface import Absent, Disabled, SoftDeleted, StoredSecret


def verdict_of(observed: ItemObservation, sibling: ItemObservation | None = None) -> Verdict:
    """The state of the secret. `sibling` is the item of the account's other key in the same vault."""
    if not isinstance(observed, Observed):
        return "unknown"
    match observed.current:
        case Absent():
            return "missing"
        case Disabled():
            return "disabled"
        case SoftDeleted():
            return "soft_deleted"
        case StoredSecret() as stored:
            return _of_value(observed, stored, sibling)


def _of_value(observed: Observed, stored: StoredSecret, sibling: ItemObservation | None) -> Verdict:
    if stored.fingerprint == observed.desired:
        return "in_sync"
    if stored.managed or not is_ours(stored.tags, observed.item):
        return "unmanaged"
    if stored.fingerprint == observed.other:
        return "duplicated" if _has_same_value(stored, sibling) else "swapped"
    return "both_changed" if _has_neither_key(sibling) else "stale"


def _has_same_value(stored: StoredSecret, sibling: ItemObservation | None) -> bool:
    other = sibling.current if isinstance(sibling, Observed) else None
    return isinstance(other, StoredSecret) and other.fingerprint == stored.fingerprint


def _has_neither_key(sibling: ItemObservation | None) -> bool:
    if not isinstance(sibling, Observed) or not isinstance(sibling.current, StoredSecret):
        return False
    stored = sibling.current
    managed = is_ours(stored.tags, sibling.item) and not stored.managed
    return managed and stored.fingerprint not in {sibling.desired, sibling.other}
