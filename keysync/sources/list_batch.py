"""Lists accounts through Batch management, by subscription or resource group."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeAlias
from urllib.parse import quote

from azure.core.exceptions import ClientAuthenticationError, DecodeError, HttpResponseError, map_error
from azure.core.rest import AsyncHttpResponse, HttpRequest
from azure.mgmt.batch.aio import BatchManagementClient

from keysync.azure.retry import Caller
from keysync.calls import Operation
from keysync.config.model import Discover
from keysync.json_values import as_list, as_mapping
from keysync.names import fold
from keysync.sources.listing import ListedAccount, ListingScope, follow

LIST_ACCOUNTS: Final = Operation("batch", "listAccounts")
API_VERSION: Final = "2025-06-01"
"""The version of Batch management that the SDK uses too, unless the configuration pins another."""

ListAccess: TypeAlias = Callable[[Discover, str], Awaitable[tuple[BatchManagementClient, Caller]]]
"""Opens the client and the caller that list one subscription for an entry."""

_OK: Final = 200
_UNAUTHORIZED: Final = 401


class BatchLister:
    """An `AccountLister`."""

    def __init__(self, open_client: ListAccess, api_version: str | None = None) -> None:
        self._open_client = open_client
        self._api_version = api_version

    def scopes(self, entry: Discover) -> Sequence[ListingScope]:
        """One scope for each resource group, or for each subscription if the entry names no groups."""
        scopes: list[ListingScope] = []
        for subscription in entry.scopes:
            for group in entry.resource_groups or ("",):
                name = f"/subscriptions/{subscription}" + (f"/resourceGroups/{group}" if group else "")
                groups = frozenset({fold(group)} if group else ())
                pages = partial(self._pages, entry, subscription, name)
                scopes.append(ListingScope(name, frozenset({subscription}), groups, pages))
        return scopes

    async def _pages(
        self, entry: Discover, subscription: str, name: str
    ) -> AsyncGenerator[Sequence[ListedAccount], None]:
        client, caller = await self._open_client(entry, subscription)
        async for page in account_pages(client, caller, name, self._api_version):
            yield page


def account_pages(
    client: BatchManagementClient, caller: Caller, scope: str, api_version: str | None
) -> AsyncGenerator[Sequence[ListedAccount], None]:
    """The pages of all accounts in a subscription or resource group, by its ARM id. The generator raises CallFailed."""
    first = f"{quote(scope)}/providers/Microsoft.Batch/batchAccounts?api-version={api_version or API_VERSION}"
    return follow(lambda link: caller.call(LIST_ACCOUNTS, scope, partial(_page, client, link or first)), scope)


async def _page(client: BatchManagementClient, link: str) -> tuple[Sequence[ListedAccount], object]:
    # The SDK's pager takes a reply without `value` for an empty list, and its models take thirty times as long as parsing.
    response = await send(client, HttpRequest("GET", link))
    reply = as_mapping(response.json()) or {}
    entries = as_list(reply.get("value"))
    if entries is None:
        raise DecodeError("a list of accounts has no `value`", response=response)
    return [_listed_account(entry) for entry in entries], reply.get("nextLink")


async def send(client: BatchManagementClient, request: HttpRequest) -> AsyncHttpResponse:
    """The reply to a request of Resource Manager, through the client's pipeline. Raises HttpResponseError unless it is a 200."""
    request.headers["Accept"] = "application/json"
    response = await client.send_request(request)
    if response.status_code != _OK:
        map_error(response.status_code, response, {_UNAUTHORIZED: ClientAuthenticationError})
        raise HttpResponseError(response=response)
    return response


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
