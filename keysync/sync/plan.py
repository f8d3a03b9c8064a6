"""The plan: a pure function of what both sides returned. It has fingerprints only while it compares them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeAlias

from keysync.names import fold
from keysync.sources.interface import KeyName
from keysync.sync import messages
from keysync.sync.history import may_need_version, too_many_versions, version_warning
from keysync.sync.metadata import MAX_TAGS, changed_fields, desired_metadata
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
        "both keys changed since the last run: regenerate one at a time, so that consumers of the other key keep working"
    ),
}
_VALUE: Final[frozenset[Field]] = frozenset({"value"})
_ByKey: TypeAlias = Mapping[tuple[str, str, KeyName], ItemObservation]  # by account, vault and key


def make_plan(observations: Iterable[ItemObservation], now: datetime) -> Plan:
    """The change that each item needs at `now` (UTC), sorted by reference."""
    everything = tuple(observations)
    # The other secret of an account matters only if a value differs from its key, which is rare.
    pairs = {_pair(each) for each in everything if isinstance(each, Observed) and may_need_version(each)}
    by_key: _ByKey = {(*_pair(each), each.item.ref.key): each for each in everything if pairs and _pair(each) in pairs}
    return Plan(in_order(_change(each, _sibling(each, by_key), now) for each in everything))


def judge(observed: Observed, now: datetime) -> Change:
    """The change that one item needs at `now` (UTC), regardless of the account's other secret."""
    return _change(observed, None, now)


def _sibling(observed: ItemObservation, by_key: _ByKey) -> ItemObservation | None:
    """The item of the account's other key in the same vault, if it matters."""
    if not by_key:
        return None
    return by_key.get((*_pair(observed), "secondary" if observed.item.ref.key == "primary" else "primary"))


def _pair(observed: ItemObservation) -> tuple[str, str]:
    return fold(observed.item.ref.account), observed.item.ref.vault


def _change(observed: ItemObservation, sibling: ItemObservation | None, now: datetime) -> Change:
    verdict = verdict_of(observed, sibling)
    since = None
    match observed:
        case Unobserved(item, error):
            change = Change(item.ref, "failed", reason=error.summary, error=error)
        case KeyRefused(item, reason):
            change = Change(item.ref, "refused", reason=reason)
        case Observed(_, _, current):
            change = _compared(observed, verdict, now)
            if change.kind == "unchanged" and change.managed:
                return change  # complete already
            since = current.created if isinstance(current, StoredSecret) else None
    read_only = observed.item.policy.read_only
    # With read_only nothing would be written, so there is nothing to accept.
    needs_accept = None if read_only else change.needs_accept
    return replace(change, verdict=verdict, read_only=read_only, needs_accept=needs_accept, since=since)


def _compared(observed: Observed, verdict: Verdict, now: datetime) -> Change:
    item, current = observed.item, observed.current
    match current:
        case Absent():
            metadata = desired_metadata(item, None, now, new_version=True)
            return _refuse_too_many_tags(Change(item.ref, "create", metadata=metadata, fields=_VALUE))
        case SoftDeleted():
            return _soft_deleted(item, current)
        case Disabled() | StoredSecret() if current.managed:
            return Change(item.ref, "refused", reason=messages.CERTIFICATE, unmanaged=True)
        case Disabled():
            return _disabled(item, current)
        case StoredSecret() if is_ours(current.tags, item):
            return _managed(observed, current, verdict, now)
        case StoredSecret():
            return _unmanaged(observed, current, now)


def _managed(observed: Observed, stored: StoredSecret, verdict: Verdict, now: datetime) -> Change:
    item, differs = observed.item, stored.fingerprint != observed.desired
    metadata = _without_excess_tags(stored, desired_metadata(item, stored, now, new_version=differs))
    fields = changed_fields(stored, metadata) | (_VALUE if differs else frozenset[Field]())
    if not fields:
        since, read_only = stored.created, item.policy.read_only
        return Change(
            item.ref, "unchanged", "in_sync", None, stored.version, managed=True, read_only=read_only, since=since
        )
    change = Change(item.ref, "update", before=stored.version, metadata=metadata, fields=fields, managed=True)
    if not differs:
        return replace(change, reason=_why_patched(fields))
    reason, warning = _WHY_UPDATED.get(verdict, _WHY_UPDATED["stale"]), version_warning(observed.history)
    needs_accept = too_many_versions(observed.history, item.policy.changes_per_day)
    return replace(change, reason=f"{reason}; {warning}" if warning else reason, needs_accept=needs_accept)


def _without_excess_tags(stored: StoredSecret, metadata: Metadata) -> Metadata:
    """`metadata` without the user's new tags if there are too many: a late key is an outage, a missing tag is not."""
    if len(metadata.tags) <= MAX_TAGS:
        return metadata
    kept = {name: value for name, value in metadata.tags.items() if name in stored.tags or name in OWN}
    return replace(metadata, tags=kept)


def _why_patched(fields: frozenset[Field]) -> str:
    named = ", ".join(sorted(field.replace("_", " ") for field in fields))
    return f"the value is right, what differs is: {named}; no new version is made"


def _unmanaged(observed: Observed, stored: StoredSecret, now: datetime) -> Change:
    item, differs = observed.item, stored.fingerprint != observed.desired
    adopt = item.policy.adopt
    if adopt == "replace" or (adopt == "untagged" and not differs and is_free(stored.tags, item)):
        metadata = desired_metadata(item, stored, now, new_version=differs)
        fields = changed_fields(stored, metadata) | (_VALUE if differs else frozenset[Field]())
        reason = messages.taken_over(stored.tags, differs=differs)
        change = Change(item.ref, "adopt", reason=reason, before=stored.version, metadata=metadata, fields=fields)
        return replace(_refuse_too_many_tags(change), unmanaged=True)
    # After a move of the account its next key would be refused. This is reported before there is a next key.
    moved = former_id(stored.tags, item) is not None
    kind: ChangeKind = "refused" if differs or moved else "unchanged"
    if differs:
        reason = messages.differs(item, stored.tags, has_other_key=stored.fingerprint == observed.other)
    else:
        reason = messages.not_marked(item, stored.tags)
    return Change(item.ref, kind, reason=reason, before=stored.version, unmanaged=True)


def _refuse_too_many_tags(change: Change) -> Change:
    count = len(change.metadata.tags) if change.metadata else 0
    if count <= MAX_TAGS:
        return change
    return Change(change.ref, "refused", reason=messages.too_many_tags(count, MAX_TAGS), before=change.before)


def _disabled(item: Item, stored: Disabled) -> Change:
    managed = stored.tags is not None and is_ours(stored.tags, item)
    if managed and item.policy.enable and stored.version is not None:
        reason = "the secret is disabled, and `disabled: enable` enables it"
        fields: frozenset[Field] = frozenset({"enabled"})
        return Change(item.ref, "update", reason=reason, before=stored.version, fields=fields, managed=True)
    reason = messages.disabled(item, stored.tags)
    return Change(item.ref, "skipped", reason=reason, before=stored.version, managed=managed, unmanaged=not managed)


def _soft_deleted(item: Item, stored: SoftDeleted) -> Change:
    if item.policy.recover and stored.tags is not None and is_ours(stored.tags, item):
        return Change(item.ref, "recover", reason="a deleted, managed secret holds this name", managed=True)
    return Change(item.ref, "refused", reason=messages.soft_deleted(item, stored))
