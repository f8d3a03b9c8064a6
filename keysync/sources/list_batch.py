"""Lists accounts through Batch management, by subscription or resource group."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from azure.mgmt.batch.aio import BatchManagementClient

from keysync.azure.policies import RAW_LIST_ENTRIES
from keysync.azure.retry import Caller
from keysync.calls import Operation
from keysync.config.model import Discover
from keysync.json_values import as_mapping
from keysync.names import fold
from keysync.sources.listing import ListedAccount, ListingScope, invalid_response

LIST_ACCOUNTS: Final = Operation("batch", "listAccounts")
MAX_PAGES: Final = 20_000
"""A listing with more pages is taken as endless and stopped."""


class BatchLister:
    """An `AccountLister`. `open_client` returns the client and the caller for one entry and subscription."""

    def __init__(self, open_client: Callable[[Discover, str], Awaitable[tuple[BatchManagementClient, Caller]]]) -> None:
        self._open_client = open_client

    def scopes(self, entry: Discover) -> Sequence[ListingScope]:
        """One scope for each resource group, or for each subscription if the entry names no groups."""
        groups: Sequence[str | None] = entry.resource_groups or (None,)
        return [self._scope(entry, subscription, group) for subscription in entry.scopes for group in groups]

    def _scope(self, entry: Discover, subscription: str, group: str | None) -> ListingScope:
        name = f"/subscriptions/{subscription}" + (f"/resourceGroups/{group}" if group else "")
        pages = partial(self._pages, entry, subscription, group, name)
        return ListingScope(name, frozenset({subscription}), frozenset({fold(group)} if group else ()), pages)

    async def _pages(
        self, entry: Discover, subscription: str, group: str | None, name: str
    ) -> AsyncGenerator[Sequence[ListedAccount], None]:
        client, caller = await self._open_client(entry, subscription)
        async for page in account_pages(client, caller, group, name):
            yield page


async def account_pages(
    client: BatchManagementClient, caller: Caller, group: str | None, name: str
) -> AsyncGenerator[Sequence[ListedAccount], None]:
    """The pages of all accounts of the client's subscription, or of one resource group. Raises CallFailed.

    `name` is the ARM id of what is listed.
    """
    link: str | None = None
    seen: set[str] = set()
    for _ in range(MAX_PAGES):
        page, link = await caller.call(LIST_ACCOUNTS, name, partial(_page, client, group, link))
        yield page
        if link is None:
            return
        if link in seen:
            break
        seen.add(link)
    raise invalid_response(f"the list of {name} does not end")


async def _page(client: Any, group: str | None, link: str | None) -> tuple[Sequence[ListedAccount], str | None]:  # noqa: ANN401  # untyped pager
    # A new pager for each attempt: the SDK's pager takes a first page that it could not parse for the last one.
    operations = client.batch_account
    pager = operations.list() if group is None else operations.list_by_resource_group(group)
    pages = pager.by_page(continuation_token=link)
    raw: list[Any] = []
    token = RAW_LIST_ENTRIES.set(raw)
    try:
        await anext(pages)
        return [_listed_account(entry) for entry in raw], pages.continuation_token
    finally:
        RAW_LIST_ENTRIES.reset(token)
        raw.clear()  # tasks that this call started keep its context, and would keep the page


def _listed_account(entry: object) -> ListedAccount:
    account = as_mapping(entry) or {}
    properties = as_mapping(account.get("properties")) or {}
    return ListedAccount.of(
        account.get("id"),
        account.get("tags"),
        properties.get("allowedAuthenticationModes"),
        properties.get("poolAllocationMode"),
        properties.get("provisioningState"),
    )
