"""The latest listing of each scope of the `discover` entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from keysync.failures import FailureRecord
from keysync.names import fold
from keysync.sources.filters import AccountFilter
from keysync.sources.listing import ListedAccount, ListingScope, UnlistedScope

# A run that starts slightly early should not have to wait for the next one.
_EARLY: Final = 0.95


@dataclass(frozen=True, slots=True)
class Problem:
    """A scope that entry `entry` could not list completely. `kept` of its accounts come from an earlier listing only."""

    scope: str
    record: FailureRecord
    entry: int
    kept: int = 0


@dataclass(slots=True)
class ScopeListing:
    """A scope of an entry, and the accounts (by `AccountId.key`) that its latest listing showed and the entry matches.

    `counts` are the matches of the entry's filters, `at` is the monotonic time of the listing in seconds, and `kept` of the
    accounts come from an earlier listing only.
    """

    filter: AccountFilter
    scope: ListingScope
    at: float = float("-inf")
    accounts: dict[str, ListedAccount] = field(default_factory=dict[str, ListedAccount])
    counts: Counter[str] = field(default_factory=Counter[str])
    unlisted: list[UnlistedScope] = field(default_factory=list[UnlistedScope])
    complete: bool = False
    kept: int = 0

    def is_due(self, now: float) -> bool:
        """Whether it has to be listed again."""
        every = self.filter.entry.every
        return every is None or not self.complete or now - self.at >= every.total_seconds() * _EARLY

    def keep(self, before: ScopeListing) -> None:
        """Adds the accounts of the listing `before` that this one may lack because it is incomplete."""
        subscriptions = {unlisted.subscription for unlisted in self.unlisted}
        for key, account in before.accounts.items():
            may_lack = None in subscriptions or fold(account.id.subscription) in subscriptions
            if may_lack and key not in self.accounts:
                self.accounts[key] = account
                self.kept += 1

    def may_have(self, account: ListedAccount) -> bool:
        """Whether a complete listing might show the account."""
        return not self.complete and self.scope.covers(account.id) and self.filter.matches(account)


def problems_of(scopes: Iterable[ScopeListing]) -> Iterator[Problem]:
    """What could not be listed."""
    for listing in scopes:
        for number, unlisted in enumerate(listing.unlisted):
            yield Problem(unlisted.scope, unlisted.record, listing.filter.index, 0 if number else listing.kept)


def warnings_of(scopes: Iterable[ScopeListing]) -> Iterator[str]:
    """Filters without a match, for each entry whose listings were all complete."""
    by_entry: dict[AccountFilter, list[ScopeListing]] = {}
    for listing in scopes:
        by_entry.setdefault(listing.filter, []).append(listing)
    for account_filter, listings in by_entry.items():
        if all(listing.complete for listing in listings):
            counts = Counter[str]()
            for listing in listings:
                counts.update(listing.counts)
            yield from account_filter.warnings(counts)
