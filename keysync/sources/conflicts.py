"""Secrets by number: which accounts would write the same secret, and which secrets other shards write.

Accounts under `accounts` are checked for conflicts with the configuration (`config.load`); here, discovered ones are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from keysync.config.model import Account
from keysync.names import fold

SecretKeys: TypeAlias = tuple[int, ...]
"""The secrets that an account writes, as numbers: names would take too much memory for the accounts of all shards."""


def secret_key(url: str, secret: str) -> int:
    """A 64-bit number for a secret (without regard to case) in the vault at `url`; equal numbers are very unlikely."""
    return hash((url, fold(secret)))


def secret_keys(account: Account, vaults: Mapping[str, str]) -> SecretKeys:
    """The numbers of the account's secrets. `vaults` maps names to URLs: two names with one URL are one vault."""
    names = account.secret_names().values()
    return tuple(secret_key(vaults[vault], name) for vault in account.vaults for name in names)


class Writer(NamedTuple):
    """An account that would write secrets; `entry` is the index of its `discover` entry, None under `accounts`."""

    resource_id: str
    entry: int | None


def conflicts_of(writers: Collection[tuple[Writer, SecretKeys]]) -> dict[int, list[Writer]]:
    """The secrets that two accounts, or one account twice, would write, with their writers in any order."""
    counts = Counter(secret for _, secrets in writers for secret in secrets)
    conflicts: dict[int, list[Writer]] = {secret: [] for secret, count in counts.items() if count > 1}
    for writer, secrets in writers if conflicts else ():
        for secret in conflicts.keys() & secrets:
            conflicts[secret].append(writer)
    return conflicts


def conflict_reason(
    account: Account, entry: int, vaults: Mapping[str, str], conflicts: Mapping[int, list[Writer]]
) -> str:
    """Why a discovered account with a secret among `conflicts` is refused."""
    secrets = [(vaults[vault], fold(name)) for vault in account.vaults for name in account.secret_names().values()]
    url, name = next(secret for secret in secrets if secret_key(*secret) in conflicts)
    secret = f"the secret {name!r} of {url}"
    others = [each for each in conflicts[secret_key(url, name)] if each != (account.resource_id, entry)]
    if not others:
        return f"two of its keys would be written to {secret}: not served. Give them different names under `secrets`"
    other = next((each for each in others if each.entry is None), others[0])
    if other.entry is not None:
        return (
            f"{other.resource_id} (discover[{other.entry}]) would write {secret} too: neither is served. "
            "Give them different names, for example with {subscription_id} or {resource_group} under `secrets`"
        )
    advice = "Give this account other names, in an entry of its own"
    if fold(other.resource_id.rpartition("/")[2]) == fold(account.name):
        moved = "If it is the same account and was moved, change its id under `accounts`"
        advice = f"{moved}; else give this account other names, in an entry of its own"
    return f"{secret} is written for {other.resource_id}, which is under `accounts` and wins: not served. {advice}"


@dataclass(frozen=True, slots=True)
class SecretNames(Container[str]):
    """The names (without regard to case) of the secrets in the vault at `url` that are among `keys`."""

    url: str
    keys: frozenset[int]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and secret_key(self.url, name) in self.keys
