"""Ownership: whether keysync manages a secret. Only its tags decide, since the vault is the only state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from keysync.names import fold
from keysync.sync.model import Item, ItemRef, Observed
from keysync.targets.interface import StoredSecret

MANAGED_BY: Final = "managed-by"
KEYSYNC: Final = "keysync"
SOURCE: Final = "keysync-source"
KEY: Final = "keysync-key"
OWNER: Final = "keysync-owner"
OWN: Final = frozenset({MANAGED_BY, SOURCE, KEY, OWNER})
"""Names of keysync's tags. A write replaces all of them."""


def own_tags(item: Item) -> dict[str, str]:
    """The tags that mark a secret as managed for `item`."""
    tags = {MANAGED_BY: KEYSYNC, SOURCE: item.ref.account, KEY: item.ref.key}
    return tags if item.policy.owner is None else {**tags, OWNER: item.policy.owner}


def is_ours(tags: Mapping[str, str], item: Item) -> bool:
    """Whether `tags` mark a secret as managed for this account, key and owner."""
    return is_ours_for(tags, item.ref, item.policy.owner)


def is_managed(observed: Observed) -> bool:
    """Whether keysync manages the stored secret. Never that of a certificate."""
    stored = observed.current
    return isinstance(stored, StoredSecret) and not stored.managed and is_ours(stored.tags, observed.item)


def is_ours_for(tags: Mapping[str, str], ref: ItemRef, owner: str | None) -> bool:
    """Whether `tags` mark the secret of `ref` as managed by `owner`. ARM ids are compared without regard to case."""
    source = tags.get(SOURCE, "")
    return (
        tags.get(MANAGED_BY) == KEYSYNC
        and (source == ref.account or fold(source) == fold(ref.account))
        and tags.get(KEY) == ref.key
        and tags.get(OWNER) == owner
    )


def is_free(tags: Mapping[str, str], item: Item) -> bool:
    """Whether tagging the secret takes it from no other owner: it has no tags of keysync, or is managed but without an owner tag."""
    return not OWN & tags.keys() or (OWNER not in tags and is_ours({**tags, OWNER: item.policy.owner or ""}, item))


def former_id(tags: Mapping[str, str], item: Item) -> str | None:
    """The ARM id in the tags, if only the account's resource group or subscription differs; else None."""
    source, account = tags.get(SOURCE, ""), item.ref.account
    renamed = fold(source).rpartition("/")[2] != fold(account).rpartition("/")[2]
    if renamed or is_ours(tags, item) or not is_ours({**tags, SOURCE: account}, item):
        return None
    return source


def owner_of(tags: Mapping[str, str]) -> str:
    """The owner of a secret according to its tags, as text."""
    manager = tags.get(MANAGED_BY)
    if manager == KEYSYNC:
        owner = f", owner {_quoted(tags[OWNER])}" if OWNER in tags else ", without an owner"
        key = _quoted(tags[KEY]) if KEY in tags else "unnamed"
        account = _quoted(tags[SOURCE]) if SOURCE in tags else "an unnamed account"
        return f"it is keysync's for the {key} key of {account}{owner}"
    if manager is not None:
        return f"managed by {_quoted(manager)}"
    if OWN & tags.keys():
        return "some of keysync's tags are there, but not `managed-by: keysync`"
    return "made by hand, or by a tool that leaves no mark"


def _quoted(text: str) -> str:
    """The text of a tag in quotes. Without ": ", so that it cannot imitate a message of keysync that suggests a command."""
    return repr(text).replace(": ", ":")
