"""The verdict: each stored value against both live keys of its account, and against the other secret beside it."""

from __future__ import annotations

from keysync.sync.model import ItemObservation, Observed, Verdict
from keysync.sync.ownership import is_ours
from keysync.targets.interface import Absent, Disabled, SoftDeleted, StoredSecret


def verdict_of(observed: ItemObservation, sibling: ItemObservation | None = None) -> Verdict:
    """How the secret stands; `sibling` is that of the account's other key in the same vault."""
    if not isinstance(observed, Observed):
        return "unknown"
    match observed.stored:
        case Absent():
            return "missing"
        case Disabled():
            return "disabled"
        case SoftDeleted():
            return "soft_deleted"
        case StoredSecret() as stored:
            return _of_value(observed, stored, sibling)


def _of_value(seen: Observed, stored: StoredSecret, sibling: ItemObservation | None) -> Verdict:
    if stored.fingerprint == seen.wanted:
        return "in_sync"
    if stored.managed or not is_ours(stored.tags, seen.item):
        return "unmanaged"
    if stored.fingerprint == seen.other:
        return "duplicated" if _holds_the_same(stored, sibling) else "swapped"
    return "both_changed" if _holds_neither(sibling) else "stale"


def _holds_the_same(stored: StoredSecret, sibling: ItemObservation | None) -> bool:
    other = sibling.stored if isinstance(sibling, Observed) else None
    return isinstance(other, StoredSecret) and other.fingerprint == stored.fingerprint


def _holds_neither(sibling: ItemObservation | None) -> bool:
    if not isinstance(sibling, Observed) or not isinstance(sibling.stored, StoredSecret):
        return False
    stored = sibling.stored
    ours = is_ours(stored.tags, sibling.item) and not stored.managed
    return ours and stored.fingerprint not in {sibling.wanted, sibling.other}
