"""Which accounts would write the same secret.

Accounts under `accounts` are checked for conflicts with the configuration (`config.load`); here, discovered ones are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple, TypeAlias

from keysync.config.model import Account
from keysync.names import fold

Secret: TypeAlias = tuple[str, str]
"""A secret by the URL of its vault and its name in lower case: two names with one URL are one vault."""


def secrets_of(account: Account, vaults: Mapping[str, str]) -> tuple[Secret, ...]:
    """The secrets that the account writes. `vaults` maps names to URLs."""
    names = account.secret_names().values()
    return tuple((vaults[vault], fold(name)) for vault in account.vaults for name in names)


class Writer(NamedTuple):
    """An account that would write secrets; `entry` is the index of its `discover` entry, None under `accounts`."""

    resource_id: str
    entry: int | None


def conflicts_of(writers: Collection[tuple[Writer, Collection[Secret]]]) -> dict[Secret, list[Writer]]:
    """The secrets that two accounts, or one account twice, would write, with their writers in any order."""
    counts = Counter(secret for _, secrets in writers for secret in secrets)
    conflicts: dict[Secret, list[Writer]] = {secret: [] for secret, count in counts.items() if count > 1}
    for writer, secrets in writers if conflicts else ():
        for secret in conflicts.keys() & secrets:
            conflicts[secret].append(writer)
    return conflicts


def conflict_reason(
    account: Account, entry: int, secrets: Collection[Secret], conflicts: Mapping[Secret, list[Writer]]
) -> str:
    """Why a discovered account with `secrets`, of which one is among `conflicts`, is refused."""
    url, name = next(secret for secret in secrets if secret in conflicts)
    secret = f"the secret {name!r} of {url}"
    others = [each for each in conflicts[url, name] if each != (account.resource_id, entry)]
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
