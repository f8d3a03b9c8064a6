"""Lists accounts of many subscriptions through Azure Resource Graph, with the pipeline of the Batch clients."""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, map_error
from azure.core.rest import HttpRequest
from azure.mgmt.batch.aio import BatchManagementClient

from keysync.azure.retry import Caller
from keysync.calls import Operation
from keysync.config.model import Credential, Discover
from keysync.failures import CallFailed, FailureRecord
from keysync.json_values import as_list, as_mapping
from keysync.names import fold
from keysync.sources.list_batch import MAX_PAGES
from keysync.sources.listing import ListedAccount, ListingPage, ListingScope, UnlistedScope

QUERY: Final = Operation("resource_graph", "queryResources")
# learn.microsoft.com/rest/api/azureresourcegraph/resourcegraph/resources/resources
_PATH: Final = "/providers/Microsoft.ResourceGraph/resources?api-version=2021-03-01"

# Microsoft's guidance for throttled requests uses groups of 100 subscriptions; the service accepts far more.
_SUBSCRIPTIONS: Final = 100
_OK: Final = 200
_UNAUTHORIZED: Final = 401
_ROWS: Final = 1000  # the maximum of a page
_RESETS: Final = re.compile(r"(\d{1,2}):(\d{1,2}):(\d{1,2})(?:\.\d+)?")
_MAX_PAUSE: Final = 60.0  # no reply may pause the listing for longer
_ACCOUNTS: Final = "resources | where type =~ 'microsoft.batch/batchaccounts'"
_COLUMNS: Final = (
    " | project id, tags, modes = properties.allowedAuthenticationModes,"
    " pool = tostring(properties.poolAllocationMode), state = tostring(properties.provisioningState)"
    # Without an order, pages of a query may repeat rows and omit others.
    " | order by id asc"
)
_VISIBLE: Final = (
    "resourcecontainers | where type =~ 'microsoft.resources/subscriptions' | project subscriptionId"
    " | order by subscriptionId asc"
)


def literal(text: str) -> str:
    """`text` as a KQL string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"


def accounts_query(groups: Sequence[str]) -> str:
    """The query for the accounts of `groups`; of all groups if empty."""
    within = f" | where resourceGroup in~ ({', '.join(literal(group) for group in groups)})" if groups else ""
    return f"{_ACCOUNTS}{within}{_COLUMNS}"


@dataclass(frozen=True, slots=True)
class _Page:
    rows: Sequence[Mapping[str, object]]
    total: int
    truncated: bool
    token: str | None


class Quota:
    """Limits the queries of one identity: one at a time, and none while its quota is used up.

    The quota is 15 queries in 5 seconds. Each reply says what remains and when the quota is full again
    (learn.microsoft.com/azure/governance/resource-graph/concepts/guidance-for-throttled-requests). `sleep` and `monotonic`
    (seconds) are parameters so that tests control time.
    """

    def __init__(
        self,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sleep = sleep
        self._monotonic = monotonic
        self._turn = asyncio.Lock()
        self._full_at = float("-inf")

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None, None]:
        """A context in which one query may be sent, with its retries."""
        async with self._turn:
            pause = self._full_at - self._monotonic()
            if pause > 0:
                await self._sleep(pause)
            yield

    def note(self, headers: Mapping[str, str]) -> None:
        """Reads the remaining quota from a reply's headers."""
        after = _RESETS.fullmatch(headers.get("x-ms-user-quota-resets-after", ""))
        if after is None or headers.get("x-ms-user-quota-remaining") != "0":
            return
        hours, minutes, seconds = (int(part) for part in after.groups())
        self._full_at = self._monotonic() + min(hours * 3600 + minutes * 60 + seconds, _MAX_PAUSE)


class ResourceGraphLister:
    """An `AccountLister`. `open_client` returns the client and the caller for an entry and any of its subscriptions."""

    def __init__(self, open_client: Callable[[Discover, str], Awaitable[tuple[BatchManagementClient, Caller]]]) -> None:
        self._open_client = open_client
        self._quotas: defaultdict[Credential | None, Quota] = defaultdict(Quota)

    def scopes(self, entry: Discover) -> Sequence[ListingScope]:
        """One scope for each 100 subscriptions."""
        parts = [entry.scopes[at : at + _SUBSCRIPTIONS] for at in range(0, len(entry.scopes), _SUBSCRIPTIONS)]
        return [self._scope(entry, part) for part in parts]

    def _scope(self, entry: Discover, part: tuple[str, ...]) -> ListingScope:
        name = f"/subscriptions/{part[0]}" if len(part) == 1 else f"Resource Graph, subscriptions from {part[0]} on"
        groups = frozenset(fold(group) for group in entry.resource_groups)
        return ListingScope(name, frozenset(part), groups, partial(self._pages, entry, part, name))

    async def _pages(self, entry: Discover, part: tuple[str, ...], name: str) -> AsyncGenerator[ListingPage, None]:
        client, caller = await self._open_client(entry, part[0])
        query = _Query(client, caller, part, name, self._quotas[entry.credential])
        seen: set[str] = set()
        async for rows in query.pages(accounts_query(entry.resource_groups)):
            accounts = [_listed_account(row) for row in rows]
            seen |= {fold(account.id.subscription) for account in accounts}
            yield ListingPage(accounts)
        if seen.issuperset(part):
            return
        # If the identity may not see a subscription, Resource Graph returns no error, just no rows for it.
        async for rows in query.pages(_VISIBLE):
            seen |= {fold(str(row.get("subscriptionId", ""))) for row in rows}
        yield ListingPage(unlisted=[_not_visible(subscription) for subscription in part if subscription not in seen])


class _Query:
    """Queries about one set of subscriptions."""

    def __init__(
        self, client: BatchManagementClient, caller: Caller, subscriptions: Sequence[str], name: str, quota: Quota
    ) -> None:
        self._client = client
        self._caller = caller
        self._subscriptions = list(subscriptions)
        self._name = name
        self._quota = quota

    async def pages(self, query: str) -> AsyncGenerator[Sequence[Mapping[str, object]], None]:
        """The pages of a query's result. Raises CallFailed if the result is incomplete."""
        token: str | None = None
        seen: set[str] = set()
        count = 0
        for _ in range(MAX_PAGES):
            async with self._quota.turn():
                page = await self._caller.call(QUERY, self._name, partial(self._page, query, token))
            yield page.rows
            count += len(page.rows)
            if page.token is None:
                if page.truncated or count < page.total:
                    raise _invalid(f"Resource Graph returned {count} of {page.total} rows of {self._name}")
                return
            token = page.token
            if token in seen:
                break
            seen.add(token)
        raise _invalid(f"the result for {self._name} does not end")

    async def _page(self, query: str, token: str | None) -> _Page:
        options = {"$top": _ROWS, "resultFormat": "objectArray", **({"$skipToken": token} if token else {})}
        body = {"query": query, "subscriptions": self._subscriptions, "options": options}
        response = await self._client.send_request(HttpRequest("POST", _PATH, json=body))
        if response.status_code != _OK:
            map_error(response.status_code, response, {_UNAUTHORIZED: ClientAuthenticationError})
            raise HttpResponseError(response=response)
        self._quota.note(response.headers)
        reply = as_mapping(response.json()) or {}
        rows = as_list(reply.get("data"))
        objects = [row for row in map(as_mapping, rows or ()) if row is not None]
        if rows is None or len(objects) < len(rows):
            raise _invalid("the reply of Resource Graph has no rows")
        total, next_token = reply.get("totalRecords"), reply.get("$skipToken")
        return _Page(
            objects,
            total if isinstance(total, int) else len(rows),
            # Without a clear `false` it is unknown whether the result is complete.
            reply.get("resultTruncated") not in {"false", False},
            next_token if isinstance(next_token, str) and next_token else None,
        )


def _listed_account(row: Mapping[str, object]) -> ListedAccount:
    return ListedAccount.of(row.get("id"), row.get("tags"), row.get("modes"), row.get("pool"), row.get("state"))


def _not_visible(subscription: str) -> UnlistedScope:
    scope = f"/subscriptions/{subscription}"
    record = FailureRecord(
        kind="cloud_error",
        summary=f"Resource Graph shows nothing of {scope}: it does not exist, or this identity may not see it",
        hint=f"check subscription_id, and that the identity has Microsoft.Batch/batchAccounts/read on {scope}",
    )
    return UnlistedScope(scope, record, subscription)


def _invalid(summary: str) -> CallFailed:
    return CallFailed(FailureRecord(kind="invalid_response", summary=summary))
