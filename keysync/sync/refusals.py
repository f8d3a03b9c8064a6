"""What a person reads where nothing was written: what, why, who owns it, and the command that resolves it."""

from __future__ import annotations

from collections.abc import Mapping

from keysync.sync.model import Item, ItemRef
from keysync.sync.ownership import is_free, owner_of

CERTIFICATE = (
    "a certificate of the vault owns this name, so its secret is never written: choose another name in `secrets`"
)


def name_of(account: str) -> str:
    """The last part of an ARM id."""
    return account.rsplit("/", 1)[-1]


def differs(item: Item, tags: Mapping[str, str], *, holds_other_key: bool) -> str:
    """A secret that is not ours and holds something else."""
    what = (
        f"the account's {'secondary' if item.ref.key == 'primary' else 'primary'} key"
        if holds_other_key
        else "another value"
    )
    return (
        f"the secret holds {what} and is not marked as keysync's for this key ({owner_of(tags)}): not overwritten. "
        f"To replace it for good: keysync adopt --account {name_of(item.ref.account)} --replace --yes; "
        f"to keep it: choose another name in `secrets`"
    )


def not_marked(item: Item, tags: Mapping[str, str]) -> str:
    """A secret that is not ours and already holds the right value."""
    flags = "--yes" if is_free(tags, item) else "--replace --yes"
    return (
        f"the value is right, but the secret is not marked as keysync's for this key ({owner_of(tags)}): it will not be kept "
        f"in step. To mark it: keysync adopt --account {name_of(item.ref.account)} {flags}"
    )


def taken_over(tags: Mapping[str, str], *, differs: bool) -> str:
    """A secret that keysync takes over."""
    how = "its value is replaced by a new version" if differs else "its value is right, only tags are set"
    return f"taken over ({owner_of(tags)}): {how}"


def disabled(item: Item, tags: Mapping[str, str] | None) -> str:
    """A secret that somebody disabled."""
    whose = f" ({owner_of(tags)})" if tags is not None else ""
    return (
        f"somebody disabled the secret{whose}, and it stays so. To have it synced: "
        f"az keyvault secret set-attributes --enabled true --id {_secret(item)}"
    )


def soft_deleted(item: Item, tags: Mapping[str, str] | None) -> str:
    """A name that a deleted secret holds."""
    whose = f" ({owner_of(tags)})" if tags is not None else ""
    place = f"{item.vault_url}/deletedsecrets/{item.ref.secret}"
    return (
        f"a deleted secret holds this name{whose}. To bring it back: az keyvault secret recover --id {place}; "
        f"to give it up for good: az keyvault secret purge --id {place}"
    )


def too_many_tags(count: int, most: int) -> str:
    """A secret without room for the tags that it needs."""
    return f"it would have {count} tags, and Key Vault takes {most}: remove some from the secret, or from `tags` of the vault"


def changed_meanwhile(ref: ItemRef) -> str:
    """A secret that was not as it had been compared when it was to be written."""
    return (
        f"somebody changed {ref.secret} since it was compared: not written. The next pass judges it anew; now: keysync sync "
        f"--account {name_of(ref.account)}"
    )


def orphan_changed_meanwhile(ref: ItemRef) -> str:
    """An orphan that was not as it had been when it was to be removed; no configured account has it."""
    return f"somebody changed {ref.secret} since it was looked at: left alone. The next pass judges it anew; now: keysync sync"


def _secret(item: Item) -> str:
    return f"{item.vault_url}/secrets/{item.ref.secret}"
