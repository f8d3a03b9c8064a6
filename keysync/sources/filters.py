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
    """The filters of `entry`, which has this `index` under `discover`."""

    def __init__(self, index: int, entry: Discover) -> None:
        self.index = index
        self.entry = entry
        self._name = pattern_of(entry.name)
        self._exclude = [(text, pattern_of(text)) for text in entry.exclude]
        self._tags = [(name, fold(name), value) for name, value in entry.tags.items()]

    def matches(self, account: ListedAccount, counts: Counter[str] | None = None) -> bool:
        """Whether the entry matches the account. `counts` counts the filters that it passed, for `warnings`."""
        excluded = [f"exclude {text}" for text, pattern in self._exclude if pattern.fullmatch(account.id.name)]
        passed = ["seen", *excluded]
        if self._name.fullmatch(account.id.name):
            folded = {fold(name): value for name, value in account.tags.items()} if self._tags else {}
            tagged = [f"tag {name}" for name, lower, value in self._tags if folded.get(lower) == value]
            passed += ["name", *tagged, *(["tags"] if len(tagged) == len(self._tags) else [])]
        if counts is not None:
            counts.update(passed)
        return "tags" in passed and not excluded

    def warnings(self, counts: Counter[str]) -> Iterator[str]:
        """A warning for each filter without a match in a complete listing: probably a typing mistake."""
        where, entry, seen = f"discover[{self.index}]", self.entry, counts["seen"]
        if not seen:
            scopes = ", ".join(entry.scopes[:3]) + (", …" if len(entry.scopes) > 3 else "")
            groups = f"{', '.join(entry.resource_groups)} of " if entry.resource_groups else ""
            yield f"{where}: there is no Batch account in {groups}{scopes}"
            return
        if not counts["name"]:
            yield f"{where}.name: {entry.name!r} matches none of the {seen} accounts there"
        elif not counts["tags"]:
            missing = [f"{name}={value!r}" for name, _, value in self._tags if not counts[f"tag {name}"]]
            tags = " and ".join(missing) or "all of the tags"
            yield f"{where}.tags: none of the {counts['name']} accounts whose name matches has {tags}"
        for text, _ in self._exclude:
            if not counts[f"exclude {text}"]:
                yield f"{where}.exclude: {text!r} matches none of the {seen} accounts there"


def apply_entry(
    listed: ListedAccount, entry: Discover, index: int, vaults: Mapping[str, str]
) -> Account | SkippedAccount:
    """The configured account that the entry makes of an account it matches; `vaults` maps configured names to URLs."""
    if fold(listed.state) in _NOT_PROVISIONED:
        return SkippedAccount(listed.id.resource_id, f"it is not provisioned: its state is {listed.state}", index)
    if listed.why_keyless is not None:
        return SkippedAccount(listed.id.resource_id, listed.why_keyless, index)
    tag = _vault_tag(listed, entry)
    chosen: Sequence[str] | str
    if tag is not None:
        chosen = _tagged_vaults(tag, entry.vaults_by_tag, vaults)
    else:
        missing = f"it has no tag {entry.vaults_by_tag}, which names its vault, and the entry has no `vaults`"
        chosen = entry.vaults or missing
    if isinstance(chosen, str):
        return SkippedAccount(listed.id.resource_id, chosen, index, refused=tag is not None)
    unusable = _unusable_name(listed, entry)
    if unusable is not None:
        return SkippedAccount(listed.id.resource_id, unusable, index, refused=True)
    return Account(
        subscription_id=intern(fold(listed.id.subscription)),  # a fleet has few subscriptions
        resource_group=listed.id.group,
        name=listed.id.name,
        vaults=tuple(chosen),
        secrets=entry.secrets,
        credential=entry.credential,
        schedule=entry.schedule,
        read_only=entry.read_only,
        adopt=entry.adopt,
    )


def _vault_tag(listed: ListedAccount, entry: Discover) -> str | None:
    """The value of the tag that names the vaults; None if the entry uses none, or the account does not have it."""
    if entry.vaults_by_tag is None:
        return None
    wanted = fold(entry.vaults_by_tag)
    return next((value for name, value in listed.tags.items() if fold(name) == wanted), None)


@lru_cache(maxsize=4096)
def _split(value: str) -> tuple[str, ...]:
    """The distinct names in a tag value; one shared object for equal values."""
    return tuple(dict.fromkeys(name for name in _SPLIT.split(value) if name))


def _tagged_vaults(value: str, tag: str | None, vaults: Mapping[str, str]) -> Sequence[str] | str:
    """The names of vaults in the value of the tag, or the reason (one text) why it has none."""
    names = _split(value)
    if not names:
        return f"its tag {tag} is empty and should name a vault"
    for name in names:
        if name not in vaults:
            similar = nearest(name, vaults)
            hint = f"did you mean {similar!r}?" if similar else "there are " + ", ".join(vaults)
            return f"its tag {tag} names the vault {name!r}, which the configuration does not have: {hint}"
    if len({vaults[name] for name in names}) < len(names):
        return f"its tag {tag} names one vault twice, by two names with the same URL"
    return names


def _unusable_name(listed: ListedAccount, entry: Discover) -> str | None:
    """The reason why a name of the account or of its secrets is impossible in Azure; None if all are possible."""
    subscription, group = listed.id.subscription, listed.id.group
    names = entry.secrets.render(listed.id.name, subscription_id=subscription, resource_group=group)
    for key, name in names.items():
        if not re.fullmatch(SECRET_NAME, name):
            return f"its {key} key would go to {name!r}, and a secret's name is 1 to 127 letters, digits and dashes"
    if not re.fullmatch(GUID, subscription) or not re.fullmatch(RESOURCE_GROUP, group):
        return "its id is not valid for a Batch account of Azure"
    return None
