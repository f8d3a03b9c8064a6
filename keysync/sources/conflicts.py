"""Accounts that would write one secret: those that were discovered are refused, those that are listed are served."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from keysync.config.settings import Account
from keysync.names import fold
from keysync.sources.filters import SkippedAccount


def number_of(url: str, secret: str) -> int:
    """A number of 64 bits for a secret (in whichever case) of the vault of that URL; two secrets hardly ever have the same."""
    return hash((url, fold(secret)))


def places(vaults: Iterable[str], names: Iterable[str], urls: Mapping[str, str]) -> bytes:
    """The secrets of these names in these vaults (`urls`: name to URL), eight bytes each: what is kept of every account."""
    names = [*names]
    return array("q", [number_of(urls[vault], name) for vault in vaults for name in names]).tobytes()


def shared(everyone: Iterable[bytes]) -> frozenset[int]:
    """The numbers of the secrets that would be written twice; `everyone` are places, once for each account."""
    ordered = sorted(array("q", b"".join(everyone)))
    return frozenset(one for one, other in pairwise(ordered) if one == other)


def is_suspect(own: bytes, among: frozenset[int]) -> bool:
    """Whether an account with these places is one that `settle` has to look at; `among` are `shared` ones."""
    return not among.isdisjoint(array("q", own))


@dataclass(frozen=True, slots=True)
class Writer:
    """One account that would write a secret; `entry` is the index of the entry that found it, None for a listed one."""

    account: Account
    entry: int | None


def settle(
    listed: Sequence[Account], found: Sequence[tuple[int, Account]], vaults: Mapping[str, str]
) -> tuple[tuple[Account, ...], tuple[SkippedAccount, ...]]:
    """Those of `found` (entry index, account; each account once) that may be served, and those that are refused.

    Accounts that are no suspects need not be among them. Vaults are compared by their URL (`vaults`: name to URL), names without case. One that is refused counts all the same
    for others, so that who is refused depends on no order.
    """
    every = [*(Writer(account, None) for account in listed), *(Writer(account, entry) for entry, account in found)]
    by_secret: defaultdict[tuple[str, str], list[Writer]] = defaultdict(list)
    for writer in every:
        for place in _secrets(writer.account, vaults):
            by_secret[place].append(writer)
    refused: dict[int, str] = {}
    for (url, secret), writers in by_secret.items():
        if len(writers) > 1:
            for writer in writers:
                if writer.entry is not None:
                    refused.setdefault(id(writer.account), _reason(writer, writers, f"the secret {secret!r} of {url}"))
    return (
        tuple(account for _, account in found if id(account) not in refused),
        tuple(
            SkippedAccount(account.resource_id, refused[id(account)], entry, refused=True, account=account)
            for entry, account in found
            if id(account) in refused
        ),
    )


def _secrets(account: Account, vaults: Mapping[str, str]) -> list[tuple[str, str]]:
    names = [fold(name) for name in account.secret_names().values()]
    return [(vaults[vault], name) for vault in account.vaults for name in names]


def _reason(writer: Writer, writers: Sequence[Writer], secret: str) -> str:
    others = [each for each in writers if each.account is not writer.account]
    if not others:
        return f"two of its keys would be written to {secret}: not served. Give them different names under `secrets`"
    told = next((each for each in others if each.entry is None), others[0])
    if told.entry is None:
        wins = (
            f"{secret} is written for {told.account.resource_id}, which stands under `accounts` and wins: not served. "
        )
        if fold(told.account.name) == fold(writer.account.name):
            wins += "If it is the same account, and was moved, change its id under `accounts`; else "
        return f"{wins}{'give' if wins.endswith('else ') else 'Give'} this account other names, in an entry of its own"
    return (
        f"{told.account.resource_id} (discover[{told.entry}]) would write {secret} too: neither is served. "
        "Give them different names, for one with {subscription_id} or {resource_group} under `secrets`"
    )
