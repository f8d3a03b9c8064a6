"""What a listing tells of an account, and how a listing is made: by scopes, each page by page."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from keysync.config.settings import Discover
from keysync.failures import CallFailed, FailureRecord
from keysync.names import fold
from keysync.sources.arm_id import AccountId


@dataclass(frozen=True, slots=True)
class ListedAccount:
    """One account as a listing shows it. `modes` are the authentication modes in lower case, None where they are not told."""

    id: AccountId
    tags: Mapping[str, str] = field(default_factory=dict)
    modes: frozenset[str] | None = None
    pool_mode: str = ""
    state: str = ""

    @classmethod
    def of(cls, resource_id: object, tags: object, modes: object, pool_mode: object, state: object) -> ListedAccount:
        """A row of what a service sent. Raises CallFailed where it is no account."""
        place = AccountId.parse(resource_id) if isinstance(resource_id, str) else None
        if place is None:
            told = "the list has an entry without the id of a Batch account"
            raise CallFailed(FailureRecord(kind="invalid_response", summary=told))
        return cls(
            place,
            {str(name): str(value) for name, value in tags.items()} if isinstance(tags, Mapping) else {},
            _modes(tuple([_text(mode) for mode in modes])) if isinstance(modes, (list, tuple)) else None,
            _text(pool_mode),
            _text(state),
        )

    @property
    def why_keyless(self) -> str | None:
        """Why the account has no keys that work; None where it has, or where the modes are not told."""
        if fold(self.pool_mode) == "usersubscription":
            return "its pools are in UserSubscription mode, so it has no shared keys"
        if self.modes is not None and "sharedkey" not in self.modes:
            return "it does not allow SharedKey, so it gives no keys"
        return None


# There are few sets of them, and a set is large beside what else is kept of an account.
@lru_cache(maxsize=64)
def _modes(told: tuple[str, ...]) -> frozenset[str]:
    return frozenset(fold(mode) for mode in told)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class UnlistedScope:
    """Why a scope was not listed whole; with a `subscription` (in lower case), only that one of it was not."""

    scope: str
    record: FailureRecord
    subscription: str | None = None


@dataclass(frozen=True, slots=True)
class ListingPage:
    """Accounts, and what of the scope could not be seen."""

    rows: Sequence[ListedAccount] = ()
    static_only: Sequence[UnlistedScope] = ()


@dataclass(frozen=True, slots=True)
class ListingScope:
    """What is listed in one go. `pages` may be called again and again; it raises CallFailed where it cannot go on.

    `subscriptions` and `groups` (none for all) are in lower case.
    """

    name: str
    subscriptions: frozenset[str]
    groups: frozenset[str]
    pages: Callable[[], AsyncGenerator[ListingPage, None]]

    def covers(self, place: AccountId) -> bool:
        """Whether an account at that place would be found here."""
        there = not self.groups or fold(place.group) in self.groups
        return there and fold(place.subscription) in self.subscriptions


class AccountLister(Protocol):
    """A way to list."""

    def scopes(self, entry: Discover) -> Sequence[ListingScope]:
        """What an entry asks to be listed, in parts that fail apart from one another."""
        ...
