"""The plan: a pure function of what both sides returned. It has fingerprints only while it compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from keysync.sync import messages
from keysync.sync.model import Change, ChangeKind, Field, Item, Observed, Verdict
from keysync.sync.ownership import OWN, former_id, is_free, is_managed, is_ours, own_tags, owner_of
from keysync.targets.interface import MAX_TAGS, Absent, Disabled, History, Metadata, SoftDeleted, StoredSecret

_WHY_UPDATED: Final[Mapping[Verdict, str]] = {
    "stale": "the stored value is not the live key",
    "swapped": "the secret held the account's other key",
    "duplicated": "this secret and the one beside it both held the account's other key",
    "both_changed": (
        "both keys changed since the last run: regenerate one at a time, so that consumers of the other key keep working"
    ),
}
# Key Vault cannot back up a secret with more than 500 versions (docs/safety.md).
_MANY_VERSIONS: Final = 300
_TOO_MANY_VERSIONS: Final = 450
_VALUE: Final[frozenset[Field]] = frozenset({"value"})


def plan_account(observed: Sequence[Observed], now: datetime) -> list[Change]:
    """The change that each item of one account in one vault needs at `now` (UTC)."""
    return [judge(each, now, observed) for each in observed]


def judge(observed: Observed, now: datetime, items: Sequence[Observed] = ()) -> Change:
    """The change that one item needs at `now` (UTC). `items` are those of its account in the same vault."""
    current, verdict = observed.current, verdict_of(observed, items)
    change = _compared(observed, verdict, now)
    read_only = observed.item.policy.read_only
    return replace(
        change,
        verdict=verdict,
        read_only=read_only,
        # With read_only nothing would be written, so there is nothing to accept.
        needs_accept=None if read_only else change.needs_accept,
        since=current.created if isinstance(current, StoredSecret) else None,
    )


def verdict_of(observed: Observed, items: Sequence[Observed] = ()) -> Verdict:
    """The state of the secret. `items` are those of its account in the same vault."""
    current = observed.current
    if isinstance(current, Absent):
        return "missing"
    if isinstance(current, Disabled):
        return "disabled"
    if isinstance(current, SoftDeleted):
        return "soft_deleted"
    if observed.has_key:
        return "in_sync"
    if not is_managed(observed):
        return "unmanaged"
    others = [each for each in items if each is not observed]
    if observed.stored_key is None:
        without_key = [each for each in others if is_managed(each) and each.stored_key is None]
        return "both_changed" if others and without_key == others else "stale"
    duplicated = any(each.item.ref.key == each.stored_key == observed.stored_key for each in others)
    return "duplicated" if duplicated else "swapped"


def _compared(observed: Observed, verdict: Verdict, now: datetime) -> Change:
    item, current = observed.item, observed.current
    match current:
        case Absent():
            metadata = desired_metadata(item, None, now, new_version=True)
            return _refuse_too_many_tags(Change(item.ref, "create", metadata=metadata, fields=_VALUE))
        case SoftDeleted() if item.policy.recover and current.tags is not None and is_ours(current.tags, item):
            return Change(item.ref, "recover", reason="a deleted, managed secret holds this name", managed=True)
        case SoftDeleted():
            return Change(item.ref, "refused", reason=messages.soft_deleted(item, current))
        case Disabled() | StoredSecret() if current.managed:
            return Change(item.ref, "refused", reason=messages.CERTIFICATE, unmanaged=True)
        case Disabled():
            return _disabled(item, current)
        case StoredSecret() if is_ours(current.tags, item):
            return _managed(observed, current, verdict, now)
        case StoredSecret():
            return _unmanaged(observed, current, now)


def _managed(observed: Observed, stored: StoredSecret, verdict: Verdict, now: datetime) -> Change:
    item, differs = observed.item, not observed.has_key
    metadata = desired_metadata(item, stored, now, new_version=differs)
    if len(metadata.tags) > MAX_TAGS:
        # Without the user's new tags: a late key is an outage, a missing tag is not.
        kept = {name: value for name, value in metadata.tags.items() if name in stored.tags or name in OWN}
        metadata = replace(metadata, tags=kept)
    fields = changed_fields(stored, metadata, value=differs)
    if not fields:
        return Change(item.ref, "unchanged", before=stored.version, managed=True)
    change = Change(item.ref, "update", before=stored.version, metadata=metadata, fields=fields, managed=True)
    if not differs:
        named = ", ".join(sorted(field.replace("_", " ") for field in fields))
        return replace(change, reason=f"the value is right, what differs is: {named}; no new version is made")
    reason, warning = _WHY_UPDATED.get(verdict, _WHY_UPDATED["stale"]), version_warning(observed.history)
    needs_accept = too_many_versions(observed.history, item.policy.changes_per_day)
    return replace(change, reason=f"{reason}; {warning}" if warning else reason, needs_accept=needs_accept)


def too_many_versions(history: History | None, changes_per_day: int | None) -> str | None:
    """Why a secret needs `--accept` before it gets another version; None if it may have one."""
    if history is None:
        return None  # the identity may not list versions, and a late key is an outage
    if history.versions >= _TOO_MANY_VERSIONS:
        return (
            f"the secret has {history.versions} versions, and with more than 500 it cannot be backed up: not written. "
            "Delete and purge it once, or use another name in `secrets`; to write it anyway"
        )
    if changes_per_day is not None and history.today >= changes_per_day:
        times = "once" if history.today == 1 else f"{history.today} times"
        return (
            f"the secret changed {times} in 24 hours (limits.changes_per_day is {changes_per_day}): not written, "
            "another tool may be writing it too. Check its versions; to write it anyway"
        )
    return None


def version_warning(history: History | None) -> str | None:
    """A warning that the secret has many versions and should be renewed soon; None otherwise."""
    if history is None or history.versions < _MANY_VERSIONS:
        return None
    return f"it has {history.versions} versions, at {_TOO_MANY_VERSIONS} keysync stops writing it"


def _unmanaged(observed: Observed, stored: StoredSecret, now: datetime) -> Change:
    item, differs = observed.item, not observed.has_key
    adopt = item.policy.adopt
    if adopt == "replace" or (adopt == "untagged" and not differs and is_free(stored.tags, item)):
        metadata = desired_metadata(item, stored, now, new_version=differs)
        fields = changed_fields(stored, metadata, value=differs)
        how = "its value is replaced by a new version" if differs else "its value is right, only tags are set"
        reason = f"taken over ({owner_of(stored.tags)}): {how}"
        change = Change(item.ref, "adopt", reason=reason, before=stored.version, metadata=metadata, fields=fields)
        return replace(_refuse_too_many_tags(change), unmanaged=True)
    # After a move of the account its next key would be refused. This is reported before there is a next key.
    moved = former_id(stored.tags, item) is not None
    kind: ChangeKind = "refused" if differs or moved else "unchanged"
    reason = messages.differs(observed, stored) if differs else messages.not_marked(item, stored.tags)
    return Change(item.ref, kind, reason=reason, before=stored.version, unmanaged=True)


def _refuse_too_many_tags(change: Change) -> Change:
    count = len(change.metadata.tags) if change.metadata else 0
    if count <= MAX_TAGS:
        return change
    reason = f"it would have {count} tags, and Key Vault takes {MAX_TAGS}: remove some from the secret, or from `tags` of the vault"
    return Change(change.ref, "refused", reason=reason, before=change.before)


def _disabled(item: Item, stored: Disabled) -> Change:
    managed = stored.tags is not None and is_ours(stored.tags, item)
    if managed and item.policy.enable and stored.version is not None:
        reason = "the secret is disabled, and `disabled: enable` enables it"
        fields: frozenset[Field] = frozenset({"enabled"})
        return Change(item.ref, "update", reason=reason, before=stored.version, fields=fields, managed=True)
    reason = messages.disabled(item, stored.tags)
    return Change(item.ref, "skipped", reason=reason, before=stored.version, managed=managed, unmanaged=not managed)


def desired_metadata(item: Item, stored: StoredSecret | None, now: datetime, *, new_version: bool) -> Metadata:
    """The metadata that the secret should have after a write at `now` (UTC).

    Tags of other tools are kept, as are content type and expiry if not configured.
    """
    tags, content_type = {**(stored.tags if stored else {}), **item.policy.tags}, item.policy.content_type
    if content_type is None:
        content_type = stored.content_type if stored else item.policy.new_content_type
    return Metadata(
        {**{name: value for name, value in tags.items() if name not in OWN}, **own_tags(item)},
        content_type,
        _expires(item, stored, now, new_version=new_version),
    )


def _expires(item: Item, stored: StoredSecret | None, now: datetime, *, new_version: bool) -> datetime | None:
    current, lifetime = stored.expires if stored else None, item.policy.expires_after
    if lifetime is None:
        # An expiry that another tool set is kept, unless it has passed: a new value must not be expired.
        return None if current is not None and new_version and current <= now else current
    # Renewed at half time: rarely, and long before the event that Key Vault raises near an expiry.
    if current is not None and not new_version and lifetime / 2 < current - now <= lifetime:
        return current
    return (now + lifetime).replace(microsecond=0)


def changed_fields(stored: StoredSecret, desired: Metadata, *, value: bool = False) -> frozenset[Field]:
    """The fields that differ from `desired`. `value`: whether the value does."""
    differences: Mapping[Field, bool] = {
        "value": value,
        "tags": dict(stored.tags) != dict(desired.tags),
        "content_type": stored.content_type != desired.content_type,
        "expires": stored.expires != desired.expires,
    }
    return frozenset(name for name, differs in differences.items() if differs)
