"""The interface of a listing: an entry's scopes, the pages of each scope, and the accounts on a page with their ARM ids."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from sys import intern
from typing import Final, Protocol, Self, TypeVar

from keysync.config.formats import batch_account_id
from keysync.config.model import Discover
from keysync.failures import FailureRecord, invalid_response
from keysync.json_values import as_list, as_mapping
from keysync.names import fold

T = TypeVar("T")

_MAX_PAGES: Final = 20_000
_ID: Final = re.compile(
    r"/subscriptions/([0-9a-f-]{36})/resourceGroups/([^/]{1,90})/providers/Microsoft\.Batch/batchAccounts/([0-9a-z]{3,24})",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class AccountId:
    """The parts of an ARM id, in their original spelling."""

    subscription: str
    group: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The parts of `text`, None if it is not the id of a Batch account."""
        match = _ID.fullmatch(text)
        # Interned: a fleet has few subscriptions and groups, and many accounts in each.
        return None if match is None else cls(intern(match[1]), intern(match[2]), match[3])

    @property
    def resource_id(self) -> str:
        """The whole id."""
        return batch_account_id(fold(self.subscription), self.group, self.name)

    @property
    def key(self) -> str:
        """The whole id in lower case: equal for two spellings of one account."""
        return fold(self.resource_id)


@dataclass(frozen=True, slots=True)
class ListedAccount:
    """An account as a listing shows it. `why_keyless` is why it has no usable keys; None if it has, or if that is not shown."""

    id: AccountId
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    why_keyless: str | None = None
    state: str = ""

    @classmethod
    def of(cls, resource_id: object, tags: object, modes: object, pool_mode: object, state: object) -> ListedAccount:
        """Reads a reply's properties of one account. Raises CallFailed if the id is not that of a Batch account."""
        account_id = AccountId.parse(resource_id) if isinstance(resource_id, str) else None
        if account_id is None:
            raise invalid_response("the list has an entry without the id of a Batch account")
        why_keyless, allowed = None, as_list(modes)
        if isinstance(pool_mode, str) and fold(pool_mode) == "usersubscription":
            why_keyless = "its pools are in UserSubscription mode, so it has no shared keys"
        elif allowed is not None and not any(isinstance(each, str) and fold(each) == "sharedkey" for each in allowed):
            why_keyless = "it does not allow SharedKey, so it gives no keys"
        return cls(
            account_id,
            {name: str(value) for name, value in (as_mapping(tags) or {}).items()},
            why_keyless,
            state if isinstance(state, str) else "",
        )


@dataclass(frozen=True, slots=True)
class UnlistedScope:
    """A scope that could not be listed completely, and why. With a `subscription` (lower case), only that one is missing."""

    scope: str
    record: FailureRecord
    subscription: str | None = None


@dataclass(frozen=True, slots=True)
class ListingScope:
    """Accounts that are listed together. `pages` may be called repeatedly; its generator raises CallFailed if it cannot go on.

    A page has accounts, and the parts of the scope that could not be listed. `subscriptions` and `groups` (empty for all) are in lower case.
    """

    name: str
    subscriptions: frozenset[str]
    groups: frozenset[str]
    pages: Callable[[], AsyncGenerator[Sequence[ListedAccount | UnlistedScope], None]]

    def covers(self, account: AccountId) -> bool:
        """Whether the account is in this scope."""
        in_group = not self.groups or fold(account.group) in self.groups
        return in_group and fold(account.subscription) in self.subscriptions


async def follow(send: Callable[[str | None], Awaitable[tuple[T, object]]], name: str) -> AsyncGenerator[T, None]:
    """The pages of a listing. `send` gets the token of a page, None for the first, and returns it with the next page's token.

    Raises CallFailed if the pages repeat or do not end.
    """
    token: str | None = None
    seen: set[str | None] = set()
    while token not in seen and len(seen) < _MAX_PAGES:
        seen.add(token)
        page, following = await send(token)
        yield page
        if not following:
            return
        token = str(following)
    raise invalid_response(f"the list of {name} does not end")


class AccountLister(Protocol):
    """Lists accounts with one Azure API."""

    def scopes(self, entry: Discover) -> Sequence[ListingScope]:
        """The scopes of an entry; each may fail on its own."""
        ...
