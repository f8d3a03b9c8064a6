"""Which accounts an entry of `discover` means, and what becomes of each: served with these vaults and names, or left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from sys import intern
from typing import Final

from keysync.config.formats import GUID, RESOURCE_GROUP, SECRET_NAME, nearest
from keysync.config.settings import Account, Discover
from keysync.names import fold
from keysync.sources.listing import ListedAccount

_SPLIT: Final = re.compile(r"[,\s]+")
# Failed and Cancelled say that the last operation failed: such an account has keys, and its consumers use them.
_NOT_THERE: Final = frozenset({"creating", "deleting", "invalid"})
_SECRET_NAME: Final = re.compile(SECRET_NAME)


@dataclass(frozen=True, slots=True)
class SkippedAccount:
    """An account that an entry means and that is not served. `entry` is the entry's index.

    `refused` says that somebody has to do something about it; `account` is what it would have been, where that can be told.
    """

    resource_id: str
    reason: str
    entry: int
    refused: bool = False
    account: Account | None = None


def pattern_of(text: str) -> re.Pattern[str]:
    """A pattern of names with ``*`` and ``?``, and nothing else that has a meaning, to be matched in full."""
    parts = {"*": ".*", "?": "."}
    return re.compile(
        "".join(parts.get(each) or re.escape(each) for each in text), re.IGNORECASE | re.ASCII | re.DOTALL
    )


class AccountFilter:
    """The filters of one entry."""

    def __init__(self, entry: Discover) -> None:
        self._name = pattern_of(entry.name)
        self._exclude = [(text, pattern_of(text)) for text in entry.exclude]
        self._tags = [(name, fold(name), value) for name, value in entry.tags.items()]
        self._entry = entry

    def takes(self, row: ListedAccount, counts: Counter[str] | None = None) -> bool:
        """Whether the entry means the account; `counts` learns which filters it passed, for `warnings`."""
        counts = Counter() if counts is None else counts
        counts["seen"] += 1
        excluded = [text for text, pattern in self._exclude if pattern.fullmatch(row.id.name)]
        for text in excluded:
            counts[f"exclude {text}"] += 1
        if not self._name.fullmatch(row.id.name):
            return False
        counts["name"] += 1
        if not self._has_tags(row, counts):
            return False
        counts["tags"] += 1
        return not excluded

    def _has_tags(self, row: ListedAccount, counts: Counter[str]) -> bool:
        if not self._tags:
            return True
        folded = {fold(name): value for name, value in row.tags.items()}
        had = [name for name, lower, value in self._tags if folded.get(lower) == value]
        for name in had:
            counts[f"tag {name}"] += 1
        return len(had) == len(self._tags)

    def warnings(self, counts: Counter[str], index: int) -> Iterator[str]:
        """What of the entry is likely a slip of the pen: filters to which a whole listing had no match."""
        where, seen = f"discover[{index}]", counts["seen"]
        if not seen:
            yield f"{where}: there is no Batch account in {_places(self._entry)}"
            return
        if not counts["name"]:
            yield f"{where}.name: {self._entry.name!r} matches none of the {seen} accounts there"
        elif not counts["tags"]:
            missing = [f"{name}={value!r}" for name, _, value in self._tags if not counts[f"tag {name}"]]
            told = " and ".join(missing) or "all of the tags at once"
            yield f"{where}.tags: none of the {counts['name']} accounts whose name matches has {told}"
        for text, _ in self._exclude:
            if not counts[f"exclude {text}"]:
                yield f"{where}.exclude: {text!r} matches none of the {seen} accounts there"


def _places(entry: Discover) -> str:
    scopes = ", ".join(entry.scopes[:3]) + (", …" if len(entry.scopes) > 3 else "")
    return f"{', '.join(entry.resource_groups)} of {scopes}" if entry.resource_groups else scopes


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the keys of an account go: names of vaults, and by key the name of its secret."""

    vaults: Sequence[str]
    names: Mapping[str, str]


def judge(row: ListedAccount, entry: Discover, index: int, vaults: Mapping[str, str]) -> Account | SkippedAccount:
    """The account that the entry makes of a row it means; `vaults` are the configured ones, name to URL."""
    found = destination(row, entry, index, vaults)
    if isinstance(found, SkippedAccount):
        return found
    return Account(
        subscription_id=intern(fold(row.id.subscription)),  # a fleet has few
        resource_group=row.id.group,
        name=row.id.name,
        vaults=tuple(found.vaults),
        secrets=entry.secrets,
        credential=entry.credential,
        schedule=entry.schedule,
        read_only=entry.read_only,
        adopt=entry.adopt,
    )


def destination(
    row: ListedAccount, entry: Discover, index: int, vaults: Mapping[str, str]
) -> Destination | SkippedAccount:
    """What `judge` needs to know: all that there is to an account that another shard serves."""
    resource_id = row.id.resource_id
    unusable = _unusable(row)
    if unusable is not None:
        return SkippedAccount(resource_id, unusable, index)
    chosen = _vaults(row, entry, vaults)
    if isinstance(chosen, str):
        return SkippedAccount(resource_id, chosen, index, refused=_tagged(row, entry) is not None)
    names = entry.secrets.render(row.id.name, subscription_id=row.id.subscription, resource_group=row.id.group)
    for key, name in names.items():
        if not _SECRET_NAME.fullmatch(name):
            told = f"its {key} key would go to {name!r}, and a secret's name is 1 to 127 letters, digits and dashes"
            return SkippedAccount(resource_id, told, index, refused=True)
    if not _is_place(row.id.subscription, row.id.group):
        return SkippedAccount(resource_id, "its id is none that Azure gives to a Batch account", index, refused=True)
    return Destination(chosen, names)


@lru_cache(maxsize=4096)
def _is_place(subscription: str, group: str) -> bool:
    """Whether Azure gives such ids and names."""
    return bool(re.fullmatch(GUID, subscription) and re.fullmatch(RESOURCE_GROUP, group))


def _unusable(row: ListedAccount) -> str | None:
    """Why an account has no keys to give."""
    if fold(row.state) in _NOT_THERE:
        return f"it is not provisioned: its state is {row.state}"
    return row.why_keyless


def _tagged(row: ListedAccount, entry: Discover) -> str | None:
    """The value of the tag that names the vaults; None where the entry knows none, or the account has it not."""
    wanted = entry.vaults_by_tag
    if wanted is None:
        return None
    return next((value for name, value in row.tags.items() if fold(name) == fold(wanted)), None)


@lru_cache(maxsize=4096)
def _split(value: str) -> tuple[str, ...]:
    """The names in a tag, each once; one object for all accounts that have the same."""
    return tuple(dict.fromkeys(name for name in _SPLIT.split(value) if name))


def _vaults(row: ListedAccount, entry: Discover, vaults: Mapping[str, str]) -> Sequence[str] | str:
    """The names of the account's vaults, or why it has none."""
    value = _tagged(row, entry)
    if value is None:
        return (
            entry.vaults or f"it has no tag {entry.vaults_by_tag}, which names its vault, and the entry has no `vaults`"
        )
    names = _split(value)
    if not names:
        return f"its tag {entry.vaults_by_tag} is empty, and should name a vault"
    for name in names:
        if name not in vaults:
            meant = nearest(name, vaults)
            hint = f"did you mean {meant!r}?" if meant else "there are " + ", ".join(vaults)
            return (
                f"its tag {entry.vaults_by_tag} names the vault {name!r}, which the configuration does not have: {hint}"
            )
    if len({vaults[name] for name in names}) < len(names):
        return f"its tag {entry.vaults_by_tag} names one vault twice, by two names that have the same URL"
    return names
