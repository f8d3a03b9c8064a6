"""The plan: a pure function of what both sides showed. It holds fingerprints only while it compares them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from keysync.sync.model import Change, Item, ItemRef, KeyRefused, Observed, Plan, Seen, Unseen
from keysync.targets.interface import Absent, Disabled, Existing, Metadata, SoftDeleted

MANAGED_BY: Final = "managed-by"
KEYSYNC: Final = "keysync"
SOURCE: Final = "keysync-source"
KEY: Final = "keysync-key"
OWNER: Final = "keysync-owner"

_MOST_TAGS: Final = 15


def make_plan(observed: Iterable[Observed]) -> Plan:
    """What each item needs, in the order of references, whatever order the observations came in."""
    return Plan(tuple(sorted((_change(one) for one in observed), key=lambda change: change.ref)))


def own_tags(item: Item) -> dict[str, str]:
    """The tags by which keysync knows a secret as its own."""
    tags = {MANAGED_BY: KEYSYNC, SOURCE: item.ref.account, KEY: item.ref.key}
    return tags if item.owner is None else {**tags, OWNER: item.owner}


def is_ours(tags: Mapping[str, str], item: Item) -> bool:
    """Whether tags mark a secret as keysync's for just this account and key. ARM ids compare without case."""
    return (
        tags.get(MANAGED_BY) == KEYSYNC
        and tags.get(SOURCE, "").lower() == item.ref.account.lower()
        and tags.get(KEY) == item.ref.key
        and tags.get(OWNER) == item.owner
    )


def _change(observed: Observed) -> Change:
    match observed:
        case Unseen(item, error):
            return Change(item.ref, "failed", reason=error.summary, error=error)
        case KeyRefused(item, reason):
            return Change(item.ref, "refused", reason=reason)
        case Seen():
            return replace(_compare(observed), read_only=observed.item.read_only)


def _compare(seen: Seen) -> Change:
    ref = seen.item.ref
    match seen.stored:
        case Absent():
            return _write(seen.item, "create", None)
        case Disabled():
            return Change(ref, "skipped", reason=_disabled(ref))
        case SoftDeleted():
            return Change(ref, "refused", reason=_soft_deleted(ref))
        case Existing() as stored if stored.managed:
            return Change(
                ref,
                "refused",
                reason="a certificate of the vault owns this name: choose another in `secrets`",
            )
        case Existing() as stored if is_ours(stored.tags, seen.item):
            if stored.fingerprint == seen.wanted:
                return Change(ref, "unchanged", before=stored.version, managed=True)
            return replace(_write(seen.item, "update", stored), managed=True)
        case Existing() as stored:
            return _foreign(seen, stored)


def _foreign(seen: Seen, stored: Existing) -> Change:
    ref, owner = seen.item.ref, _owner_of(stored.tags)
    if stored.fingerprint != seen.wanted:
        reason = (
            f"the secret holds another value and is not marked as keysync's for this key ({owner}): not overwritten. "
            f"Choose another name in `secrets`, or remove it if nobody needs it"
        )
        return Change(ref, "refused", reason=reason, before=stored.version)
    unmarked = MANAGED_BY not in stored.tags
    if seen.item.adopt and unmarked:
        return _write(seen.item, "adopt", stored)
    cure = ": set `adopt: true` to mark it" if unmarked else ""
    reason = f"the value is right, but the secret is not marked as keysync's for this key ({owner}){cure}"
    return Change(ref, "unchanged", reason=reason, before=stored.version)


def _write(item: Item, kind: str, stored: Existing | None) -> Change:
    carried = dict(stored.tags) if stored else {}
    tags = {**carried, **item.tags, **own_tags(item)}
    before = stored.version if stored else None
    if len(tags) > _MOST_TAGS:
        reason = f"it would have {len(tags)} tags, and Key Vault takes {_MOST_TAGS}: remove some from the secret or from `tags`"
        return Change(item.ref, "refused", reason=reason, before=before)
    content_type = item.content_type or (stored.content_type if stored else None)
    metadata = Metadata(tags, content_type)
    match kind:
        case "create":
            return Change(item.ref, "create", before=before, metadata=metadata)
        case "adopt":
            return Change(item.ref, "adopt", before=before, metadata=metadata)
        case _:
            return Change(
                item.ref,
                "update",
                reason="the stored value is not the live key",
                before=before,
                metadata=metadata,
            )


def _owner_of(tags: Mapping[str, str]) -> str:
    if tags.get(MANAGED_BY) == KEYSYNC:
        owner = f", owner {tags[OWNER]!r}" if OWNER in tags else ""
        return (
            f"it is keysync's for the {tags.get(KEY, 'unnamed')} key of {tags.get(SOURCE, 'an unnamed account')}{owner}"
        )
    manager = tags.get(MANAGED_BY)
    return f"managed by {manager!r}" if manager else "made by hand, or by a tool that leaves no mark"


def _disabled(ref: ItemRef) -> str:
    return (
        "the secret is disabled and stays so: enable it to have it synced "
        f"(az keyvault secret set-attributes --name {ref.secret} --enabled true)"
    )


def _soft_deleted(ref: ItemRef) -> str:
    return (
        "a deleted secret holds this name: recover it "
        f"(az keyvault secret recover --name {ref.secret}), or purge it if nobody needs it"
    )
