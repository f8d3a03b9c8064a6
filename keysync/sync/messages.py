"""Reasons why a secret is not written: what was found, who owns it, and the command that resolves it."""

from __future__ import annotations

from collections.abc import Mapping

from keysync.sync.model import Item, ItemRef, Observed
from keysync.sync.ownership import former_id, is_free, is_ours, owner_of
from keysync.targets.interface import SoftDeleted, StoredSecret

CERTIFICATE = (
    "a certificate of the vault owns this name, so its secret is never written: choose another name in `secrets`"
)


def differs(observed: Observed, stored: StoredSecret) -> str:
    """An unmanaged secret with another value."""
    value = f"the account's {observed.stored_key} key" if observed.stored_key else "another value"
    return (
        f"the secret holds {value} and is not tagged as keysync's for this key ({owner_of(stored.tags)}): not overwritten. To keep "
        f"it, choose another name in `secrets`. To replace it for good: {_adopt(observed.item, '--replace --yes')}"
    )


def not_marked(item: Item, tags: Mapping[str, str]) -> str:
    """An unmanaged secret that already has the right value."""
    adopt, former = _adopt(item, "--yes" if is_free(tags, item) else "--replace --yes"), former_id(tags, item)
    if former is not None:
        return (
            f"the account was moved: the value is right, but the secret is tagged for {former!r}, so it will not be kept in sync. "
            f"To mark it for the account as it is now: {adopt}"
        )
    return (
        f"the value is right, but the secret is not tagged as keysync's for this key ({owner_of(tags)}): it will not be kept "
        f"in sync. To mark it: {adopt}"
    )


def disabled(item: Item, tags: Mapping[str, str] | None) -> str:
    """A disabled secret."""
    owner = f" ({owner_of(tags)})" if tags is not None else ""
    return (
        f"the secret is disabled{owner}, and keysync does not enable it. To enable it{_then_adopt(item, tags)}: "
        f"az keyvault secret set-attributes --enabled true --id {item.policy.vault_url}/secrets/{item.ref.secret}"
    )


def soft_deleted(item: Item, stored: SoftDeleted) -> str:
    """A name that a soft-deleted secret still holds."""
    owner = f" ({owner_of(stored.tags)})" if stored.tags is not None else ""
    url = f"{item.policy.vault_url}/deletedsecrets/{item.ref.secret}"
    recover = f"To recover it{_then_adopt(item, stored.tags)}: az keyvault secret recover --id {url}"
    found = f"a deleted secret holds this name{owner}, so it cannot be written"
    if stored.purgeable:
        return f"{found}. {recover}; to purge it for good: az keyvault secret purge --id {url}"
    until = f" on {stored.purged_on:%Y-%m-%d}" if stored.purged_on is not None else " by itself"
    return f"{found}. It has purge protection: recover it, or wait until Azure purges it{until}. {recover}"


def changed_meanwhile(ref: ItemRef) -> str:
    """A secret that changed between the comparison and the write."""
    return f"{ref.secret} was changed after it was compared: not written. The next run compares it again. To do so now: keysync sync"


def orphan_changed_meanwhile(ref: ItemRef) -> str:
    """An orphan that changed between the search and its removal."""
    return f"{ref.secret} was changed after it was found to be an orphan: not removed. The next run checks it again. To do so now: keysync sync"


def command(name: str, options: str) -> str:
    """A keysync command with `options`, for a suggestion."""
    return " ".join(filter(None, ("keysync", name, options)))


def _adopt(item: Item, flags: str) -> str:
    # By vault and secret: the account has other secrets, and another account may have the same name.
    return f"{command('adopt', item.policy.options)} --secret {item.ref.vault}/{item.ref.secret} {flags}"


def _then_adopt(item: Item, tags: Mapping[str, str] | None) -> str:
    unmanaged = tags is not None and not is_ours(tags, item)
    return " (and adopt it then, since it is not keysync's for this key)" if unmanaged else ""
