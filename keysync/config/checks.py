"""Rules about several mappings of the configuration: duplicates, conflicts of secrets, and what `orphans` needs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Annotated, TypeAlias

from keysync.config.model import Config
from keysync.config.rules import Problem, Rule, require_none
from keysync.names import fold


def _checked(config: Config) -> Config:
    require_none([*_empty_or_unowned(config), *_shared_secrets(config), *_duplicate_vaults(config)])
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


def _shared_secrets(config: Config) -> Iterator[Problem]:
    """Accounts that are listed twice, and other keys that would be written to one secret."""
    seen: dict[str, int] = {}
    writers: dict[tuple[str, str], str] = {}
    for index, account in enumerate(config.accounts):
        first = seen.setdefault(account.key, index)
        if first != index:
            yield Problem(f"this account is also accounts[{first}]", "remove one", ("accounts", index, "name"))
            continue
        for vault, (key, secret) in product(account.vaults, account.secret_names().items()):
            if vault not in config.vaults:
                continue  # `load` reports it
            url, writer = config.vaults[vault].url, f"the {key} key of {account.name} (accounts[{index}])"
            if other := writers.get((url, fold(secret))):
                message = f"{other} and {writer} would both write the secret {secret!r} of {url}"
                hint = "give one of them another name under secrets"
                yield Problem(message, hint, ("accounts", index, "secrets", key))
            writers.setdefault((url, fold(secret)), writer)


def _duplicate_vaults(config: Config) -> Iterator[Problem]:
    """Two names of one vault in a `discover` entry, which would write each secret twice. `_shared_secrets` covers `accounts`."""
    for index, entry in enumerate(config.discover):
        seen: dict[str, str] = {}
        for position, name in enumerate(entry.vaults):
            url = config.vaults[name].url if name in config.vaults else name
            first = seen.setdefault(url, name)
            if position and first in entry.vaults[:position]:
                message = f"{name!r} is the same vault as {first!r}, so each secret would be written twice"
                yield Problem(message, "remove one", ("discover", index, "vaults", position))
