"""Conflicts: accounts that would write the same secret. Discovered accounts are refused.

Accounts under `accounts` are checked with the configuration (`config.models`).
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from keysync.config.model import Account
from keysync.names import fold
from keysync.sources.filters import SkippedAccount


def secret_number(url: str, secret: str) -> int:
    """A 64-bit number for a secret (without regard to case) in the vault at `url`; equal numbers are very unlikely."""
    return hash((url, fold(secret)))


def secret_numbers(vaults: Iterable[str], names: Iterable[str], urls: Mapping[str, str]) -> bytes:
    """The numbers of these secrets in these vaults, eight bytes each: compact enough to keep for every account.

    `urls` maps the name of a vault to its URL.
    """
    names = [*names]
    return array("q", [secret_number(urls[vault], name) for vault in vaults for name in names]).tobytes()


def duplicates(accounts: Iterable[bytes]) -> frozenset[int]:
    """The numbers of secrets that would be written twice; `accounts` has the `secret_numbers` of each account once."""
    ordered = sorted(array("q", b"".join(accounts)))
    return frozenset(number for number, following in pairwise(ordered) if number == following)


def has_duplicate(numbers: bytes, among: frozenset[int]) -> bool:
    """Whether an account with these `secret_numbers` writes one of the `duplicates`, so that `refuse_conflicts` must check it."""
    return not among.isdisjoint(array("q", numbers))


@dataclass(frozen=True, slots=True)
class Writer:
    """An account that would write a secret; `entry` is the index of its `discover` entry, None under `accounts`."""

    account: Account
    entry: int | None


def refuse_conflicts(
    listed: Sequence[Account], discovered: Sequence[tuple[int, Account]], vaults: Mapping[str, str]
) -> tuple[tuple[Account, ...], tuple[SkippedAccount, ...]]:
    """Splits `discovered` (entry index and account, each account once) into accounts without a conflict and refused ones.

    Accounts without a duplicate may be omitted. Vaults are compared by URL (`vaults`: name to URL), names without regard to
    case. A refused account still conflicts with others, so the result does not depend on the order.
    """
    writers = [
        *(Writer(account, None) for account in listed),
        *(Writer(account, entry) for entry, account in discovered),
    ]
    by_secret: defaultdict[tuple[str, str], list[Writer]] = defaultdict(list)
    for writer in writers:
        for secret in _secrets(writer.account, vaults):
            by_secret[secret].append(writer)
    refused: dict[int, str] = {}
    for (url, name), rivals in by_secret.items():
        if len(rivals) > 1:
            for writer in rivals:
                if writer.entry is not None:
                    refused.setdefault(id(writer.account), _reason(writer, rivals, f"the secret {name!r} of {url}"))
    return (
        tuple(account for _, account in discovered if id(account) not in refused),
        tuple(
            SkippedAccount(account.resource_id, refused[id(account)], entry, refused=True, account=account)
            for entry, account in discovered
            if id(account) in refused
        ),
    )


def _secrets(account: Account, vaults: Mapping[str, str]) -> list[tuple[str, str]]:
    names = [fold(name) for name in account.secret_names().values()]
    return [(vaults[vault], name) for vault in account.vaults for name in names]


def _reason(writer: Writer, writers: Sequence[Writer], secret: str) -> str:
    others = [other for other in writers if other.account is not writer.account]
    if not others:
        return f"two of its keys would be written to {secret}: not served. Give them different names under `secrets`"
    other = next((each for each in others if each.entry is None), others[0])
    if other.entry is not None:
        return (
            f"{other.account.resource_id} (discover[{other.entry}]) would write {secret} too: neither is served. "
            "Give them different names, for example with {subscription_id} or {resource_group} under `secrets`"
        )
    reason = f"{secret} is written for {other.account.resource_id}, which is under `accounts` and wins: not served. "
    if fold(other.account.name) == fold(writer.account.name):
        return (
            f"{reason}If it is the same account and was moved, change its id under `accounts`; "
            "else give this account other names, in an entry of its own"
        )
    return f"{reason}Give this account other names, in an entry of its own"
