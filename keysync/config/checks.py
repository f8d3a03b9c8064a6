"""Rules about several mappings of the configuration: duplicates, conflicts of secrets, and what `orphans` needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, TypeAlias

from keysync.config.model import Account, Config
from keysync.config.rules import Problem, Rule, require_none
from keysync.names import fold


def _checked(config: Config) -> Config:
    require_none(
        [
            *_empty_or_unowned(config),
            *_duplicate_accounts(config),
            *_conflicts(config),
            *_duplicate_vaults(config),
        ]
    )
    return config


ValidConfig: TypeAlias = Annotated[Config, Rule(_checked)]
"""A configuration that keeps these rules too."""


def _empty_or_unowned(config: Config) -> Iterator[Problem]:
    if not config.accounts and not config.discover:
        hint = "list an account under `accounts`, or add an entry to `discover`"
        yield Problem("accounts and discover are both empty", hint)
    if config.orphans != "keep" and config.owner is None:
        message = f"orphans: {config.orphans} needs an owner: it affects only secrets with the tag of this owner"
        hint = "set `owner` to a name for this installation, or set orphans: keep"
        yield Problem(message, hint, ("orphans",))


def _duplicate_accounts(config: Config) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, account in enumerate(config.accounts):
        first = seen.setdefault(account.key, index)
        if first != index:
            yield Problem(f"this account is also accounts[{first}]", "remove one", ("accounts", index, "name"))


def _conflicts(config: Config) -> Iterator[Problem]:
    """Two keys that would be written to one secret. Duplicate accounts are excluded: they have a problem already."""
    writers: dict[tuple[str, str], tuple[int, str, Account]] = {}
    for index, account in enumerate(config.accounts):
        for vault, key, secret in _targets(config, account):
            url = config.vaults[vault].url
            writer = (index, key, account)
            other = writers.setdefault((url, fold(secret)), writer)
            if other is not writer and (other[0] == index or other[2].key != account.key):
                writes = " and ".join(f"the {k} key of {a.name} (accounts[{n}])" for n, k, a in (other, writer))
                message = f"{writes} would both write the secret {secret!r} of {url}"
                yield Problem(
                    message, "give one of them another name under secrets", ("accounts", index, "secrets", key)
                )


def _targets(config: Config, account: Account) -> Iterator[tuple[str, str, str]]:
    """Each (vault, key, secret name) that an account writes to."""
    for vault in account.vaults:
        if vault in config.vaults:
            for key, secret in account.secret_names().items():
                yield vault, key, secret


def _duplicate_vaults(config: Config) -> Iterator[Problem]:
    """Two names of one vault in a `discover` entry, which would write each secret twice. `_conflicts` covers `accounts`."""
    for index, entry in enumerate(config.discover):
        seen: dict[str, str] = {}
        for position, name in enumerate(entry.vaults):
            url = config.vaults[name].url if name in config.vaults else name
            first = seen.setdefault(url, name)
            if position and first in entry.vaults[:position]:
                message = f"{name!r} is the same vault as {first!r}, so each secret would be written twice"
                yield Problem(message, "remove one", ("discover", index, "vaults", position))
