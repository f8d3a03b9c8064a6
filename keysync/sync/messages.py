"""What a person reads where nothing was written: what, why, who owns it, and the command that resolves it."""

from __future__ import annotations

from collections.abc import Mapping

from keysync.sync.model import Item, ItemRef
from keysync.sync.ownership import former_id, is_free, is_ours, owner_of
from keysync.targets.interface import SoftDeleted

CERTIFICATE = (
    "a certificate of the vault owns this name, so its secret is never written: choose another name in `secrets`"
)


def differs(item: Item, tags: Mapping[str, str], *, holds_other_key: bool) -> str:
    """A secret that is not ours and holds something else."""
    what = (
        f"the account's {'secondary' if item.ref.key == 'primary' else 'primary'} key"
        if holds_other_key
        else "another value"
    )
    return (
        f"the secret holds {what} and is not marked as keysync's for this key ({owner_of(tags)}): not overwritten. "
        f"To keep it, choose another name in `secrets`. "
        f"To replace it for good: {_adopt(item, '--replace --yes')}"
    )


def not_marked(item: Item, tags: Mapping[str, str]) -> str:
    """A secret that is not ours and already holds the right value."""
    flags = "--yes" if is_free(tags, item) else "--replace --yes"
    former = former_id(tags, item)
    if former is not None:
        return (
            f"the account was moved: the value is right, but the secret is marked for {former!r}, so it will not be kept in sync. "
            f"To mark it for the account as it is now: {_adopt(item, flags)}"
        )
    return (
        f"the value is right, but the secret is not marked as keysync's for this key ({owner_of(tags)}): it will not be kept "
        f"in sync. To mark it: {_adopt(item, flags)}"
    )


def taken_over(tags: Mapping[str, str], *, differs: bool) -> str:
    """A secret that keysync takes over."""
    how = "its value is replaced by a new version" if differs else "its value is right, only tags are set"
    return f"taken over ({owner_of(tags)}): {how}"


def disabled(item: Item, tags: Mapping[str, str] | None) -> str:
    """A secret that somebody disabled."""
    whose = f" ({owner_of(tags)})" if tags is not None else ""
    return (
        f"somebody disabled the secret{whose}, and it stays so. To enable it{_then_adopt(item, tags)}: "
        f"az keyvault secret set-attributes --enabled true --id {_secret(item)}"
    )


def soft_deleted(item: Item, stored: SoftDeleted) -> str:
    """A name that a deleted secret holds."""
    whose = f" ({owner_of(stored.tags)})" if stored.tags is not None else ""
    place = f"{item.policy.vault_url}/deletedsecrets/{item.ref.secret}"
    recover = f"To recover it{_then_adopt(item, stored.tags)}: az keyvault secret recover --id {place}"
    held = f"a deleted secret holds this name{whose}, so it cannot be written"
    if stored.purgeable:
        return f"{held}. {recover}; to purge it for good: az keyvault secret purge --id {place}"
    until = f" on {stored.purged_on:%Y-%m-%d}" if stored.purged_on is not None else " by itself"
    return f"{held}. It has purge protection: recover it, or wait until Azure purges it{until}. {recover}"


def too_many_tags(count: int, most: int) -> str:
    """A secret without room for the tags that it needs."""
    return f"it would have {count} tags, and Key Vault takes {most}: remove some from the secret, or from `tags` of the vault"


def changed_meanwhile(ref: ItemRef, options: str = "") -> str:
    """A secret that was not as it had been compared when it was to be written."""
    return (
        f"somebody changed {ref.secret} since it was compared: not written. The next run judges it anew. To do so now: "
        f"{command('sync', options)}"
    )


def orphan_changed_meanwhile(ref: ItemRef) -> str:
    """An orphan that was not as it had been found when it was to be removed."""
    return (
        f"somebody changed {ref.secret} since it was found to be an orphan: not removed. The next run judges it anew. To do so "
        "now: keysync sync"
    )


def command(name: str, options: str) -> str:
    """A command of keysync's with the options of this run."""
    return " ".join(filter(None, ("keysync", name, options)))


def _adopt(item: Item, flags: str) -> str:
    # By vault and name: the account has other secrets, and another account may have its name.
    return f"{command('adopt', item.policy.options)} --secret {item.ref.vault}/{item.ref.secret} {flags}"


def _then_adopt(item: Item, tags: Mapping[str, str] | None) -> str:
    unmanaged = tags is not None and not is_ours(tags, item)
    return " (and adopt it then, since it is not keysync's for this key)" if unmanaged else ""


def _secret(item: Item) -> str:
    return f"{item.policy.vault_url}/secrets/{item.ref.secret}"
