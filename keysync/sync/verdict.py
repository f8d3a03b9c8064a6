"""The verdict: each stored value against both live keys of its account, and against the other secret beside it."""

from __future__ import annotations

from keysync.sync.model import Observed, Seen, Verdict
from keysync.sync.ownership import is_ours
from keysync.targets.interface import Absent, Disabled, Existing, SoftDeleted


def verdict_of(observed: Observed, sibling: Observed | None = None) -> Verdict:
    """How the secret stands; `sibling` is that of the account's other key in the same vault."""
    if not isinstance(observed, Seen):
        return "unknown"
    match observed.stored:
        case Absent():
            return "missing"
        case Disabled():
            return "disabled"
        case SoftDeleted():
            return "soft_deleted"
        case Existing() as stored:
            return _of_value(observed, stored, sibling)


def _of_value(seen: Seen, stored: Existing, sibling: Observed | None) -> Verdict:
    if stored.fingerprint == seen.wanted:
        return "in_sync"
    if stored.managed or not is_ours(stored.tags, seen.item):
        return "foreign"
    if stored.fingerprint == seen.other:
        return "duplicated" if _holds_the_same(stored, sibling) else "swapped"
    return "both_changed" if _holds_neither(sibling) else "stale"


def _holds_the_same(stored: Existing, sibling: Observed | None) -> bool:
    other = sibling.stored if isinstance(sibling, Seen) else None
    return isinstance(other, Existing) and other.fingerprint == stored.fingerprint


def _holds_neither(sibling: Observed | None) -> bool:
    if not isinstance(sibling, Seen) or not isinstance(sibling.stored, Existing):
        return False
    stored = sibling.stored
    ours = is_ours(stored.tags, sibling.item) and not stored.managed
    return ours and stored.fingerprint not in {sibling.wanted, sibling.other}
