"""Observations of the two secrets of one account, for the pure functions of the sync."""

from __future__ import annotations

from typing import Any, Final

from keysync.secret.fingerprint import Fingerprint, Fingerprinter
from keysync.secret.value import SecretValue
from keysync.sources.interface import KeyName
from keysync.sync.model import Item, ItemPolicy, Observed
from keysync.sync.ownership import own_tags
from keysync.targets.interface import History, Observation, StoredSecret
from tests.support.runs import key, ref

OTHER: Final[dict[KeyName, KeyName]] = {"primary": "secondary", "secondary": "primary"}
_PRINTS: Final = Fingerprinter()


def print_of(text: str) -> Fingerprint:
    """The fingerprint of the key that is made from `text`."""
    return _PRINTS.of(SecretValue(key(text)))


def item(name: KeyName = "primary", account: str = "alpha", **settings: Any) -> Item:
    """One key of an account, configured with `settings`."""
    return Item(ref(account, name), ItemPolicy(**settings))


def stored(text: str, tags: dict[str, str] | None = None, **more: Any) -> StoredSecret:
    """A secret with the key made from `text`: ``primary`` and ``secondary`` are the live keys, any other is neither."""
    return StoredSecret("v1", print_of(text), tags or {}, **more)


def ours(text: str, name: KeyName = "primary", **more: Any) -> StoredSecret:
    """The same, tagged as keysync's for the key `name` of alpha."""
    return stored(text, own_tags(item(name)), **more)


def look(item: Item, observation: Observation, *, history: History | None = None, at: float = 0.0) -> Observed:
    """The input of the plan for `item`, whose secret is as in `observation`."""
    return Observed(item, {name: print_of(name) for name in OTHER}, observation, at, history)


def long_history(versions: int, today: int = 0) -> History:
    """A secret with so many versions, `today` of them created in the last 24 hours."""
    return History(versions, today)
