"""The plan: a pure function of what both sides showed. It holds fingerprints only while it compares them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from keysync.names import fold
from keysync.sync import messages
from keysync.sync.history import may_need_version, too_many_versions, version_warning
from keysync.sync.metadata import MOST_TAGS, changed_fields, desired_metadata
from keysync.sync.model import (
    Change,
    ChangeKind,
    Field,
    Item,
    ItemObservation,
    KeyRefused,
    Observed,
    Plan,
    Unobserved,
    Verdict,
    in_order,
)
from keysync.sync.ownership import OWN, former_id, is_free, is_ours
from keysync.sync.verdict import verdict_of
from keysync.targets.interface import Absent, Disabled, Metadata, SoftDeleted, StoredSecret

_WHY_UPDATED: Final[Mapping[Verdict, str]] = {
    "stale": "the stored value is not the live key",
    "swapped": "the secret held the account's other key",
    "duplicated": "this secret and the one beside it both held the account's other key",
    "both_changed": (
        "both keys changed since the last run: regenerate one at a time, so that those who use the other go on working"
    ),
}
_VALUE: Final[frozenset[Field]] = frozenset({"value"})


def make_plan(observed: Iterable[ItemObservation], now: datetime) -> Plan:
    """What each item needs at `now` (UTC), in the order of references, whatever order the observations came in."""
    everything = tuple(observed)
    # The secret beside one matters only to those that hold something else than their key, which are few.
    troubled = {_pair(one) for one in everything if _needs_its_sibling(one)}
    seen: dict[tuple[str, str, str], ItemObservation] = {
        (*_pair(one), one.item.ref.key): one for one in everything if troubled and _pair(one) in troubled
    }
    return Plan(in_order(_judged(one, _sibling(one, seen), now) for one in everything))


def judge(seen: Observed, now: datetime) -> Change:
    """What one item needs, without regard to the secret beside it."""
    return _judged(seen, None, now)


def _needs_its_sibling(one: ItemObservation) -> bool:
    return isinstance(one, Observed) and may_need_version(one)


def _sibling(one: ItemObservation, seen: Mapping[tuple[str, str, str], ItemObservation]) -> ItemObservation | None:
    if not seen:
        return None
    return seen.get((*_pair(one), "secondary" if one.item.ref.key == "primary" else "primary"))


def _pair(one: ItemObservation) -> tuple[str, str]:
    return fold(one.item.ref.account), one.item.ref.vault


def _judged(observed: ItemObservation, sibling: ItemObservation | None, now: datetime) -> Change:
    verdict = verdict_of(observed, sibling)
    match observed:
        case Unobserved(item, error):
            change = Change(item.ref, "failed", reason=error.summary, error=error)
        case KeyRefused(item, reason):
            change = Change(item.ref, "refused", reason=reason)
        case Observed():
            change = _compared(observed, verdict, now)
            if change.kind == "unchanged" and change.managed:
                return change  # nothing is to be added
    since = (
        observed.stored.created
        if isinstance(observed, Observed) and isinstance(observed.stored, StoredSecret)
        else None
    )
    read_only = observed.item.policy.read_only
    # Nothing waits for a person where accepting it would write nothing.
    held = None if read_only else change.held
    return replace(change, verdict=verdict, read_only=read_only, held=held, since=since)


def _in_sync(seen: Observed, stored: StoredSecret) -> Change:
    return Change(
        seen.item.ref,
        "unchanged",
        "in_sync",
        before=stored.version,
        managed=True,
        read_only=seen.item.policy.read_only,
        since=stored.created,
    )


def _compared(seen: Observed, verdict: Verdict, now: datetime) -> Change:
    item, stored = seen.item, seen.stored
    match stored:
        case Absent():
            metadata = desired_metadata(item, None, now, new_version=True)
            return _within_tags(Change(item.ref, "create", metadata=metadata, fields=_VALUE))
        case SoftDeleted():
            return _soft_deleted(item, stored)
        case Disabled() | StoredSecret() if stored.managed:
            return Change(item.ref, "refused", reason=messages.CERTIFICATE, unmanaged=True)
        case Disabled():
            return _disabled(item, stored)
        case StoredSecret() if is_ours(stored.tags, item):
            return _ours(seen, stored, verdict, now)
        case StoredSecret():
            return _unmanaged(seen, stored, now)


def _ours(seen: Observed, stored: StoredSecret, verdict: Verdict, now: datetime) -> Change:
    item, differs = seen.item, stored.fingerprint != seen.wanted
    metadata = _roomy(stored, desired_metadata(item, stored, now, new_version=differs))
    fields = changed_fields(stored, metadata)
    if differs:
        fields |= _VALUE
    elif not fields:
        return _in_sync(seen, stored)
    change = Change(item.ref, "update", before=stored.version, metadata=metadata, fields=fields, managed=True)
    if not differs:
        return replace(change, reason=_why_patched(fields))
    return _with_history(replace(change, reason=_WHY_UPDATED.get(verdict, _WHY_UPDATED["stale"])), seen)


def _roomy(stored: StoredSecret, metadata: Metadata) -> Metadata:
    """Without the user's tags that find no room: a late key is an outage, a missing tag is not."""
    if len(metadata.tags) <= MOST_TAGS:
        return metadata
    kept = {name: value for name, value in metadata.tags.items() if name in stored.tags or name in OWN}
    return replace(metadata, tags=kept)


def _why_patched(fields: frozenset[Field]) -> str:
    named = ", ".join(sorted(field.replace("_", " ") for field in fields))
    return f"the value is right, what differs is: {named}; no new version is made"


def _with_history(change: Change, seen: Observed) -> Change:
    held = too_many_versions(seen.history, seen.item.policy.changes_per_day)
    note = version_warning(seen.history)
    reason = f"{change.reason}; {note}" if note else change.reason
    return replace(change, held=held, reason=reason)


def _unmanaged(seen: Observed, stored: StoredSecret, now: datetime) -> Change:
    item, differs = seen.item, stored.fingerprint != seen.wanted
    allowed = item.policy.adopt == "replace" or (
        item.policy.adopt == "unmarked" and not differs and is_free(stored.tags, item)
    )
    if allowed:
        metadata = desired_metadata(item, stored, now, new_version=differs)
        fields = changed_fields(stored, metadata) | (_VALUE if differs else frozenset())
        reason = messages.taken_over(stored.tags, differs=differs)
        adopt = Change(item.ref, "adopt", reason=reason, before=stored.version, metadata=metadata, fields=fields)
        return replace(_within_tags(adopt), unmanaged=True)
    # The secret of an account that was moved: its next key would be refused, so it is said before there is one.
    moved = former_id(stored.tags, item) is not None
    kind: ChangeKind = "refused" if differs or moved else "unchanged"
    holds_other_key = stored.fingerprint == seen.other
    reason = (
        messages.differs(item, stored.tags, holds_other_key=holds_other_key)
        if differs
        else messages.not_marked(item, stored.tags)
    )
    return Change(item.ref, kind, reason=reason, before=stored.version, unmanaged=True)


def _within_tags(change: Change) -> Change:
    count = len(change.metadata.tags) if change.metadata else 0
    if count <= MOST_TAGS:
        return change
    return Change(change.ref, "refused", reason=messages.too_many_tags(count, MOST_TAGS), before=change.before)


def _disabled(item: Item, stored: Disabled) -> Change:
    ours = stored.tags is not None and is_ours(stored.tags, item)
    if ours and item.policy.enable and stored.version is not None:
        reason = "somebody disabled the secret, and `disabled: enable` enables it"
        fields: frozenset[Field] = frozenset({"enabled"})
        return Change(item.ref, "update", reason=reason, before=stored.version, fields=fields, managed=True)
    reason = messages.disabled(item, stored.tags)
    return Change(item.ref, "skipped", reason=reason, before=stored.version, managed=ours, unmanaged=not ours)


def _soft_deleted(item: Item, stored: SoftDeleted) -> Change:
    if item.policy.recover and stored.tags is not None and is_ours(stored.tags, item):
        return Change(item.ref, "recover", reason="a deleted secret of ours holds this name", managed=True)
    return Change(item.ref, "refused", reason=messages.soft_deleted(item, stored))
