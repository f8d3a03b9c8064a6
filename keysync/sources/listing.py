"""The interface of a listing: an entry's scopes, the pages of each scope, and the accounts on a page."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol, cast

from keysync.config.model import Discover
from keysync.failures import CallFailed, FailureRecord
from keysync.names import fold
from keysync.sources.arm_id import AccountId


@dataclass(frozen=True, slots=True)
class ListedAccount:
    """An account as a listing shows it. `modes` are the authentication modes in lower case, None if not shown."""

    id: AccountId
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    modes: frozenset[str] | None = None
    pool_mode: str = ""
    state: str = ""

    @classmethod
    def of(cls, resource_id: object, tags: object, modes: object, pool_mode: object, state: object) -> ListedAccount:
        """Reads a reply's properties of one account. Raises CallFailed if the id is not that of a Batch account."""
        account_id = AccountId.parse(resource_id) if isinstance(resource_id, str) else None
        if account_id is None:
            summary = "the list has an entry without the id of a Batch account"
            raise CallFailed(FailureRecord(kind="invalid_response", summary=summary))
        # A type in a reply is known only after its check, so the checked parts are cast.
        tag_items = cast("Mapping[object, object]", tags).items() if isinstance(tags, Mapping) else ()
        return cls(
            account_id,
            {str(name): str(value) for name, value in tag_items},
            _modes(tuple([_text(mode) for mode in cast("Sequence[object]", modes)]))
            if isinstance(modes, list | tuple)
            else None,
            _text(pool_mode),
            _text(state),
        )

    @property
    def why_keyless(self) -> str | None:
        """The reason why the account has no usable keys; None if it has, or if its modes are not shown."""
        if fold(self.pool_mode) == "usersubscription":
            return "its pools are in UserSubscription mode, so it has no shared keys"
        if self.modes is not None and "sharedkey" not in self.modes:
            return "it does not allow SharedKey, so it gives no keys"
        return None


# Cached: there are few distinct sets, and a set is large compared with the rest of an account.
@lru_cache(maxsize=64)
def _modes(modes: tuple[str, ...]) -> frozenset[str]:
    return frozenset(fold(mode) for mode in modes)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class UnlistedScope:
    """A scope that could not be listed completely, and why. With a `subscription` (lower case), only that one is missing."""

    scope: str
    record: FailureRecord
    subscription: str | None = None


@dataclass(frozen=True, slots=True)
class ListingPage:
    """Accounts, and the parts of the scope that could not be listed."""

    accounts: Sequence[ListedAccount] = ()
    unlisted: Sequence[UnlistedScope] = ()


@dataclass(frozen=True, slots=True)
class ListingScope:
    """Accounts that are listed together. `pages` may be called repeatedly; its generator raises CallFailed if it cannot go on.

    `subscriptions` and `groups` (empty for all) are in lower case.
    """

    name: str
    subscriptions: frozenset[str]
    groups: frozenset[str]
    pages: Callable[[], AsyncGenerator[ListingPage, None]]

    def covers(self, account: AccountId) -> bool:
        """Whether the account is in this scope."""
        in_group = not self.groups or fold(account.group) in self.groups
        return in_group and fold(account.subscription) in self.subscriptions


class AccountLister(Protocol):
    """Lists accounts with one Azure API."""

    def scopes(self, entry: Discover) -> Sequence[ListingScope]:
        """The scopes of an entry; each may fail on its own."""
        ...
