"""Lists accounts through Batch management, by subscription and by group."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from azure.mgmt.batch.aio import BatchManagementClient

from keysync.azure.policies import RAW_LIST_ENTRIES
from keysync.azure.retry import Caller
from keysync.config.settings import Discover
from keysync.failures import CallFailed, FailureRecord
from keysync.names import fold
from keysync.sources.existence import LIST_ACCOUNTS
from keysync.sources.listing import ListedAccount, ListingPage, ListingScope

MOST_PAGES: Final = 20_000
"""Where a list is given up that goes on and on."""


class BatchLister:
    """A `AccountLister`; `open_` gives the client of one subscription and the caller for it, as an entry asks."""

    def __init__(self, open_: Callable[[Discover, str], Awaitable[tuple[BatchManagementClient, Caller]]]) -> None:
        self._open = open_

    def scopes(self, entry: Discover) -> Sequence[ListingScope]:
        """One for each group, or for each subscription where no groups are named."""
        groups: Sequence[str | None] = entry.resource_groups or (None,)
        return [self._scope(entry, subscription, group) for subscription in entry.scopes for group in groups]

    def _scope(self, entry: Discover, subscription: str, group: str | None) -> ListingScope:
        name = f"/subscriptions/{subscription}" + (f"/resourceGroups/{group}" if group else "")
        pages = partial(self._pages, entry, subscription, group, name)
        return ListingScope(name, frozenset({subscription}), frozenset({fold(group)} if group else ()), pages)

    async def _pages(
        self, entry: Discover, subscription: str, group: str | None, name: str
    ) -> AsyncGenerator[ListingPage, None]:
        client, caller = await self._open(entry, subscription)
        link: str | None = None
        seen: set[str] = set()
        for _ in range(MOST_PAGES):
            page, link = await caller.call(LIST_ACCOUNTS, name, partial(_page, client, group, link))
            yield page
            if link is None:
                return
            if link in seen:
                break
            seen.add(link)
        raise CallFailed(FailureRecord(kind="invalid_response", summary=f"the list of {name} does not end"))


async def _page(client: Any, group: str | None, link: str | None) -> tuple[ListingPage, str | None]:  # noqa: ANN401  # untyped pager
    # A pager of its own for each attempt: the SDK's takes a first page that it could not parse for the last one.
    operations = client.batch_account
    pager = operations.list() if group is None else operations.list_by_resource_group(group)
    pages = pager.by_page(continuation_token=link)
    raw: list[Any] = []
    token = RAW_LIST_ENTRIES.set(raw)
    try:
        await anext(pages)
        return ListingPage([_row(account) for account in raw]), pages.continuation_token
    finally:
        RAW_LIST_ENTRIES.reset(token)
        raw.clear()  # the context of this call lives on in whatever it began, and the page would with it


def _row(account: object) -> ListedAccount:
    told = account if isinstance(account, dict) else {}
    properties = told.get("properties")
    traits = properties if isinstance(properties, dict) else {}
    return ListedAccount.of(
        told.get("id"),
        told.get("tags"),
        traits.get("allowedAuthenticationModes"),
        traits.get("poolAllocationMode"),
        traits.get("provisioningState"),
    )
