"""Secrets by number: which accounts would write the same secret, and which secrets other shards write.

Accounts under `accounts` are checked for conflicts with the configuration (`config.checks`); here, discovered ones are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterator, Mapping
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
    return tuple(secret_key(*secret) for secret in _secrets(account, vaults))


def _secrets(account: Account, vaults: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for vault in account.vaults:
        for name in account.secret_names().values():
            yield vaults[vault], fold(name)


class Writer(NamedTuple):
    """An account that would write secrets; `entry` is the index of its `discover` entry, None under `accounts`."""

    resource_id: str
    entry: int | None


class Conflicts:
    """The secrets that two accounts, or one account twice, would write. The order of `writers` has no influence."""

    def __init__(self, writers: Collection[tuple[Writer, SecretKeys]]) -> None:
        counts = Counter(secret for _, secrets in writers for secret in secrets)
        twice = {secret for secret, count in counts.items() if count > 1}
        self._writers: defaultdict[int, list[Writer]] = defaultdict(list)
        for writer, secrets in writers if twice else ():
            for secret in twice.intersection(secrets):
                self._writers[secret].append(writer)

    def has(self, secrets: SecretKeys) -> bool:
        """Whether one of `secrets` is among them."""
        return not self._writers.keys().isdisjoint(secrets)

    def reason(self, account: Account, entry: int, vaults: Mapping[str, str]) -> str:
        """Why a discovered account with a conflict is refused."""
        url, name = next(secret for secret in _secrets(account, vaults) if secret_key(*secret) in self._writers)
        secret = f"the secret {name!r} of {url}"
        others = [each for each in self._writers[secret_key(url, name)] if each != (account.resource_id, entry)]
        if not others:
            return (
                f"two of its keys would be written to {secret}: not served. Give them different names under `secrets`"
            )
        other = next((each for each in others if each.entry is None), others[0])
        if other.entry is not None:
            return (
                f"{other.resource_id} (discover[{other.entry}]) would write {secret} too: neither is served. "
                "Give them different names, for example with {subscription_id} or {resource_group} under `secrets`"
            )
        reason = f"{secret} is written for {other.resource_id}, which is under `accounts` and wins: not served. "
        if fold(other.resource_id.rpartition("/")[2]) == fold(account.name):
            return (
                f"{reason}If it is the same account and was moved, change its id under `accounts`; "
                "else give this account other names, in an entry of its own"
            )
        return f"{reason}Give this account other names, in an entry of its own"


@dataclass(frozen=True, slots=True)
class SecretNames(Container[str]):
    """The names (without regard to case) of the secrets in the vault at `url` that are among `keys`."""

    url: str
    keys: frozenset[int]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and secret_key(self.url, name) in self.keys
