"""Lists accounts through Batch management, and proves that an account is gone."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, TypeAlias
from urllib.parse import quote

from azure.core.exceptions import DecodeError
from azure.core.rest import AsyncHttpResponse, HttpRequest
from azure.mgmt.batch.aio import BatchManagementClient

from keysync.azure.clients import require_ok
from keysync.azure.retry import Caller
from keysync.calls import Operation
from keysync.config.model import Discover
from keysync.failures import CallFailed, FailureRecord, invalid_response
from keysync.json_values import as_list, as_mapping
from keysync.names import fold
from keysync.sources.azure_batch import GET_ACCOUNT
from keysync.sources.listing import AccountId, ListedAccount, ListingScope, follow

LIST_ACCOUNTS: Final = Operation("batch", "listAccounts")
API_VERSION: Final = "2025-06-01"
"""The version of Batch management that the SDK uses too, unless the configuration pins another."""

ListAccess: TypeAlias = Callable[[Discover, str], Awaitable[tuple[BatchManagementClient, Caller]]]
"""Opens the client and the caller that list one subscription for an entry."""

# SubscriptionNotFound is no proof: an identity of another tenant gets it too.
# AccountNotFound is Batch's own 404, which Resource Manager passes on.
_PROOF: Final = ("ResourceNotFound", "ResourceGroupNotFound", "AccountNotFound")


@dataclass(frozen=True, slots=True)
class BatchLister:
    """An `AccountLister`."""

    open_client: ListAccess
    api_version: str | None = None

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
        client, caller = await self.open_client(entry, subscription)
        async for page in _account_pages(client, caller, name, self.api_version):
            yield page


def _account_pages(
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
    accounts: list[ListedAccount] = []
    for entry in entries:
        account = as_mapping(entry) or {}
        properties = as_mapping(account.get("properties")) or {}
        names = ("allowedAuthenticationModes", "poolAllocationMode", "provisioningState")
        accounts.append(ListedAccount.of(account.get("id"), account.get("tags"), *map(properties.get, names)))
    return accounts, reply.get("nextLink")


async def send(client: BatchManagementClient, request: HttpRequest) -> AsyncHttpResponse:
    """The reply to a request of Resource Manager, through the client's pipeline. Raises HttpResponseError unless it is a 200."""
    request.headers["Accept"] = "application/json"
    response = await client.send_request(request)
    require_ok(response)
    return response


@dataclass(frozen=True, slots=True)
class BatchAccountExistence:
    """Checks accounts for one run; lists each subscription at most once."""

    client_of: Callable[[str], Awaitable[BatchManagementClient]]
    caller: Caller
    api_version: str | None = None
    _listed: dict[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    _locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def presence(self, account: str) -> Literal["there", "gone"]:
        """``gone`` only after a 404 for the account (by ARM or Batch), if a complete listing of its subscription lacks it too.

        ARM checks permissions first, so an identity without read permission gets 403 here and never 404. Raises CallFailed if
        the answer is not certain.
        """
        account_id = AccountId.parse(account)
        if account_id is None:
            raise CallFailed(FailureRecord(kind="internal", summary=f"not the ARM id of a Batch account: {account}"))
        client = await self.client_of(account_id.subscription)
        get = partial(client.batch_account.get, account_id.group, account_id.name)
        try:
            await self.caller.call(GET_ACCOUNT, account, get)
        except CallFailed as failure:
            if failure.record.http_status != 404 or not failure.record.has_code(*_PROOF):
                raise
            return "there" if account_id.key in await self._listing(client, fold(account_id.subscription)) else "gone"
        return "there"

    async def _listing(self, client: BatchManagementClient, subscription: str) -> frozenset[str]:
        """The accounts of a subscription, as `AccountId.key`."""
        async with self._locks[subscription]:
            if subscription not in self._listed:
                pages = _account_pages(client, self.caller, f"/subscriptions/{subscription}", self.api_version)
                ids = [account.id async for page in pages for account in page]
                if any(fold(each.subscription) != subscription for each in ids):
                    raise invalid_response("the listing contains accounts of another subscription")
                self._listed[subscription] = frozenset(each.key for each in ids)
            return self._listed[subscription]
