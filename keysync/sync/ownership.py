"""Whose a secret is: judged by its tags alone, since the vault is the only state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from keysync.names import fold
from keysync.sync.model import Item

MANAGED_BY: Final = "managed-by"
KEYSYNC: Final = "keysync"
SOURCE: Final = "keysync-source"
KEY: Final = "keysync-key"
OWNER: Final = "keysync-owner"
OWN: Final = frozenset({MANAGED_BY, SOURCE, KEY, OWNER})
"""Names of the tags that are keysync's: nobody else's survive a write."""


def own_tags(item: Item) -> dict[str, str]:
    """The tags by which keysync knows a secret as its own."""
    tags = {MANAGED_BY: KEYSYNC, SOURCE: item.ref.account, KEY: item.ref.key}
    return tags if item.policy.owner is None else {**tags, OWNER: item.policy.owner}


def is_ours(tags: Mapping[str, str], item: Item) -> bool:
    """Whether tags mark a secret as keysync's for just this account and key. ARM ids compare without case."""
    source = tags.get(SOURCE, "")
    return (
        tags.get(MANAGED_BY) == KEYSYNC
        and (source == item.ref.account or fold(source) == fold(item.ref.account))
        and tags.get(KEY) == item.ref.key
        and tags.get(OWNER) == item.policy.owner
    )


def is_unmarked(tags: Mapping[str, str]) -> bool:
    """Whether nobody claims the secret by a tag that is known to be one."""
    return not OWN & tags.keys()


def is_free(tags: Mapping[str, str], item: Item) -> bool:
    """Whether marking the secret takes it from nobody: it is unmarked, or ours but for an owner that nobody has named."""
    return is_unmarked(tags) or (OWNER not in tags and is_ours({**tags, OWNER: item.policy.owner or ""}, item))


def former_id(tags: Mapping[str, str], item: Item) -> str | None:
    """The ARM id for which tags mark a secret as ours, where only the group or subscription of the account differs."""
    source, account = tags.get(SOURCE, ""), item.ref.account
    renamed = fold(source).rpartition("/")[2] != fold(account).rpartition("/")[2]
    if renamed or is_ours(tags, item) or not is_ours({**tags, SOURCE: account}, item):
        return None
    return source


def owner_of(tags: Mapping[str, str]) -> str:
    """Whose the secret is, as far as its tags tell."""
    manager = tags.get(MANAGED_BY)
    if manager == KEYSYNC:
        owner = f", owner {_quoted(tags[OWNER])}" if OWNER in tags else ", without an owner"
        key = _quoted(tags[KEY]) if KEY in tags else "unnamed"
        account = _quoted(tags[SOURCE]) if SOURCE in tags else "an unnamed account"
        return f"it is keysync's for the {key} key of {account}{owner}"
    if manager is not None:
        return f"managed by {_quoted(manager)}"
    if not is_unmarked(tags):
        return "some of keysync's tags are there, but not `managed-by: keysync`"
    return "made by hand, or by a tool that leaves no mark"


def _quoted(text: str) -> str:
    """The words of whoever may tag the secret: as such in quotes, and never as one of our sentences that tells a command."""
    return repr(text).replace(": ", ":")
