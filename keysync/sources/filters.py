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
    pattern = re.escape(text).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(pattern, re.IGNORECASE | re.ASCII | re.DOTALL)


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

    def skipped(reason: str, *, refused: bool = False) -> SkippedAccount:
        return SkippedAccount(listed.id.resource_id, reason, index, refused)

    if fold(listed.state) in _NOT_PROVISIONED:
        return skipped(f"it is not provisioned: its state is {listed.state}")
    if listed.why_keyless is not None:
        return skipped(listed.why_keyless)
    tag, chosen, unusable = entry.vaults_by_tag, entry.vaults, None
    value = None if tag is None else next((listed.tags[name] for name in listed.tags if fold(name) == fold(tag)), None)
    if value is not None:
        chosen = _split(value)
        unusable = _tag_problem(chosen, f"its tag {tag}", vaults)
    elif not chosen:
        return skipped(f"it has no tag {tag}, which names its vault, and the entry has no `vaults`")
    unusable = unusable or _name_problem(listed, entry)
    if unusable is not None:
        return skipped(unusable, refused=True)
    return Account(
        subscription_id=intern(fold(listed.id.subscription)),  # a fleet has few subscriptions
        resource_group=listed.id.group,
        name=listed.id.name,
        vaults=chosen,
        secrets=entry.secrets,
        credential=entry.credential,
        schedule=entry.schedule,
        read_only=entry.read_only,
        adopt=entry.adopt,
    )


@lru_cache(maxsize=4096)
def _split(value: str) -> tuple[str, ...]:
    """The distinct names in a tag value; one shared object for equal values."""
    return tuple(dict.fromkeys(name for name in _SPLIT.split(value) if name))


def _tag_problem(names: Sequence[str], tag: str, vaults: Mapping[str, str]) -> str | None:
    """Why the names in a tag are not those of vaults; None if they are."""
    if not names:
        return f"{tag} is empty and should name a vault"
    for name in names:
        if name not in vaults:
            similar = nearest(name, vaults)
            hint = f"did you mean {similar!r}?" if similar else "there are " + ", ".join(vaults)
            return f"{tag} names the vault {name!r}, which the configuration does not have: {hint}"
    if len({vaults[name] for name in names}) < len(names):
        return f"{tag} names one vault twice, by two names with the same URL"
    return None


def _name_problem(listed: ListedAccount, entry: Discover) -> str | None:
    """Why a name of the account or of its secrets is impossible in Azure; None if all are possible."""
    subscription, group = listed.id.subscription, listed.id.group
    names = entry.secrets.render(listed.id.name, subscription_id=subscription, resource_group=group)
    for key, name in names.items():
        if not re.fullmatch(SECRET_NAME, name):
            return f"its {key} key would go to {name!r}, and a secret's name is 1 to 127 letters, digits and dashes"
    if not re.fullmatch(GUID, subscription) or not re.fullmatch(RESOURCE_GROUP, group):
        return "its id is not valid for a Batch account of Azure"
    return None
