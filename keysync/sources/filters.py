"""Which accounts an entry of `discover` matches, and for each its vaults and secret names, or why it is skipped."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from sys import intern
from typing import Final

from keysync.config.formats import GUID, RESOURCE_GROUP, SECRET_NAME, nearest
from keysync.config.model import Account, Discover
from keysync.names import fold
from keysync.sources.listing import ListedAccount

_SPLIT: Final = re.compile(r"[,\s]+")
# Failed and Cancelled concern the last operation: such an account has keys, and its consumers use them.
_NOT_PROVISIONED: Final = frozenset({"creating", "deleting", "invalid"})
_SECRET_NAME: Final = re.compile(SECRET_NAME)


@dataclass(frozen=True, slots=True)
class SkippedAccount:
    """An account that an entry matches and that is not covered. `entry` is the entry's index.

    `refused`: someone has to fix it. `account` is the account as it would have been covered, if known.
    """

    resource_id: str
    reason: str
    entry: int
    refused: bool = False
    account: Account | None = None


def pattern_of(text: str) -> re.Pattern[str]:
    """A case-insensitive pattern for `fullmatch`, from a text whose only wildcards are ``*`` and ``?``."""
    parts = {"*": ".*", "?": "."}
    return re.compile(
        "".join(parts.get(char) or re.escape(char) for char in text), re.IGNORECASE | re.ASCII | re.DOTALL
    )


class AccountFilter:
    """The filters of one entry."""

    def __init__(self, entry: Discover) -> None:
        self._name = pattern_of(entry.name)
        self._exclude = [(text, pattern_of(text)) for text in entry.exclude]
        self._tags = [(name, fold(name), value) for name, value in entry.tags.items()]
        self._entry = entry

    def matches(self, account: ListedAccount, counts: Counter[str] | None = None) -> bool:
        """Whether the entry matches the account. `counts` counts the filters that it passed, for `warnings`."""
        counts = Counter() if counts is None else counts
        counts["seen"] += 1
        excluded = [text for text, pattern in self._exclude if pattern.fullmatch(account.id.name)]
        for text in excluded:
            counts[f"exclude {text}"] += 1
        if not self._name.fullmatch(account.id.name):
            return False
        counts["name"] += 1
        if not self._has_tags(account, counts):
            return False
        counts["tags"] += 1
        return not excluded

    def _has_tags(self, account: ListedAccount, counts: Counter[str]) -> bool:
        if not self._tags:
            return True
        folded = {fold(name): value for name, value in account.tags.items()}
        matching = [name for name, lower, value in self._tags if folded.get(lower) == value]
        for name in matching:
            counts[f"tag {name}"] += 1
        return len(matching) == len(self._tags)

    def warnings(self, counts: Counter[str], index: int) -> Iterator[str]:
        """A warning for each filter without a match in a complete listing: probably a typing mistake."""
        where, seen = f"discover[{index}]", counts["seen"]
        if not seen:
            yield f"{where}: there is no Batch account in {_scopes(self._entry)}"
            return
        if not counts["name"]:
            yield f"{where}.name: {self._entry.name!r} matches none of the {seen} accounts there"
        elif not counts["tags"]:
            missing = [f"{name}={value!r}" for name, _, value in self._tags if not counts[f"tag {name}"]]
            tags = " and ".join(missing) or "all of the tags"
            yield f"{where}.tags: none of the {counts['name']} accounts whose name matches has {tags}"
        for text, _ in self._exclude:
            if not counts[f"exclude {text}"]:
                yield f"{where}.exclude: {text!r} matches none of the {seen} accounts there"


def _scopes(entry: Discover) -> str:
    scopes = ", ".join(entry.scopes[:3]) + (", …" if len(entry.scopes) > 3 else "")
    return f"{', '.join(entry.resource_groups)} of {scopes}" if entry.resource_groups else scopes


@dataclass(frozen=True, slots=True)
class Destination:
    """The vaults of an account (names), and the secret name of each key."""

    vaults: Sequence[str]
    names: Mapping[str, str]


def apply_entry(
    listed: ListedAccount, entry: Discover, index: int, vaults: Mapping[str, str]
) -> Account | SkippedAccount:
    """The configured account that the entry makes of an account it matches; `vaults` maps configured names to URLs."""
    target = destination(listed, entry, index, vaults)
    if isinstance(target, SkippedAccount):
        return target
    return Account(
        subscription_id=intern(fold(listed.id.subscription)),  # a fleet has few subscriptions
        resource_group=listed.id.group,
        name=listed.id.name,
        vaults=tuple(target.vaults),
        secrets=entry.secrets,
        credential=entry.credential,
        schedule=entry.schedule,
        read_only=entry.read_only,
        adopt=entry.adopt,
    )


def destination(
    listed: ListedAccount, entry: Discover, index: int, vaults: Mapping[str, str]
) -> Destination | SkippedAccount:
    """The vaults and secret names of an account. For an account of another shard, nothing else is needed."""
    resource_id = listed.id.resource_id
    unusable = _unusable(listed)
    if unusable is not None:
        return SkippedAccount(resource_id, unusable, index)
    chosen = _vaults(listed, entry, vaults)
    if isinstance(chosen, str):
        return SkippedAccount(resource_id, chosen, index, refused=_vault_tag(listed, entry) is not None)
    names = entry.secrets.render(listed.id.name, subscription_id=listed.id.subscription, resource_group=listed.id.group)
    for key, name in names.items():
        if not _SECRET_NAME.fullmatch(name):
            reason = f"its {key} key would go to {name!r}, and a secret's name is 1 to 127 letters, digits and dashes"
            return SkippedAccount(resource_id, reason, index, refused=True)
    if not _is_valid_id(listed.id.subscription, listed.id.group):
        return SkippedAccount(resource_id, "its id is not valid for a Batch account of Azure", index, refused=True)
    return Destination(chosen, names)


@lru_cache(maxsize=4096)
def _is_valid_id(subscription: str, group: str) -> bool:
    """Whether Azure could use this subscription id and group name."""
    return bool(re.fullmatch(GUID, subscription) and re.fullmatch(RESOURCE_GROUP, group))


def _unusable(listed: ListedAccount) -> str | None:
    """The reason why an account has no usable keys, None if it has."""
    if fold(listed.state) in _NOT_PROVISIONED:
        return f"it is not provisioned: its state is {listed.state}"
    return listed.why_keyless


def _vault_tag(listed: ListedAccount, entry: Discover) -> str | None:
    """The value of the tag that names the vaults; None if the entry uses none, or the account does not have it."""
    tag = entry.vaults_by_tag
    if tag is None:
        return None
    return next((value for name, value in listed.tags.items() if fold(name) == fold(tag)), None)


@lru_cache(maxsize=4096)
def _split(value: str) -> tuple[str, ...]:
    """The distinct names in a tag value; one shared object for equal values."""
    return tuple(dict.fromkeys(name for name in _SPLIT.split(value) if name))


def _vaults(listed: ListedAccount, entry: Discover, vaults: Mapping[str, str]) -> Sequence[str] | str:
    """The names of the account's vaults, or the reason (one text) why it has none."""
    value = _vault_tag(listed, entry)
    if value is None:
        return (
            entry.vaults or f"it has no tag {entry.vaults_by_tag}, which names its vault, and the entry has no `vaults`"
        )
    names = _split(value)
    if not names:
        return f"its tag {entry.vaults_by_tag} is empty and should name a vault"
    for name in names:
        if name not in vaults:
            similar = nearest(name, vaults)
            hint = f"did you mean {similar!r}?" if similar else "there are " + ", ".join(vaults)
            return (
                f"its tag {entry.vaults_by_tag} names the vault {name!r}, which the configuration does not have: {hint}"
            )
    if len({vaults[name] for name in names}) < len(names):
        return f"its tag {entry.vaults_by_tag} names one vault twice, by two names with the same URL"
    return names
