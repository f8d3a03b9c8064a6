"""Lists accounts of many subscriptions through Azure Resource Graph, with the pipeline of the Batch clients."""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from azure.core.rest import HttpRequest
from azure.mgmt.batch.aio import BatchManagementClient

from keysync.azure.retry import Caller
from keysync.calls import Operation
from keysync.config.credentials import Credential
from keysync.config.model import Discover
from keysync.failures import FailureRecord, invalid_response
from keysync.json_values import as_list, as_mapping
from keysync.names import fold
from keysync.sources.list_batch import ListAccess, send
from keysync.sources.listing import ListedAccount, ListingScope, UnlistedScope, follow

QUERY: Final = Operation("resource_graph", "queryResources")
# learn.microsoft.com/rest/api/azureresourcegraph/resourcegraph/resources/resources
_PATH: Final = "/providers/Microsoft.ResourceGraph/resources?api-version=2021-03-01"

# Microsoft's guidance for throttled requests uses groups of 100 subscriptions; the service accepts far more.
_SUBSCRIPTIONS: Final = 100
_ROWS: Final = 1000  # the maximum of a page
_RESETS: Final = re.compile(r"(\d{1,2}):(\d{1,2}):(\d{1,2})(?:\.\d+)?")
_MAX_PAUSE: Final = 60.0  # no reply may pause the listing for longer
# Without an order, pages of a query may repeat rows and omit others.
_ACCOUNTS: Final = """resources | where type =~ 'microsoft.batch/batchaccounts'{within}
 | project id, tags, modes = properties.allowedAuthenticationModes,
 pool = tostring(properties.poolAllocationMode), state = tostring(properties.provisioningState) | order by id asc"""
_VISIBLE: Final = """resourcecontainers | where type =~ 'microsoft.resources/subscriptions'
 | project subscriptionId | order by subscriptionId asc"""


def literal(text: str) -> str:
    """`text` as a KQL string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"


def accounts_query(groups: Sequence[str]) -> str:
    """The query for the accounts of `groups`; of all groups if empty."""
    within = f" | where resourceGroup in~ ({', '.join(literal(group) for group in groups)})" if groups else ""
    return _ACCOUNTS.replace("{within}", within)


@dataclass(slots=True)
class Quota:
    """Limits the queries of one identity: one at a time, and none while its quota is used up.

    The quota is 15 queries in 5 seconds. Each reply says what remains and when the quota is full again
    (learn.microsoft.com/azure/governance/resource-graph/concepts/guidance-for-throttled-requests). `sleep` and `monotonic`
    (seconds) are parameters so that tests control time.
    """

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _full_at: float = float("-inf")

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None, None]:
        """A context in which one query may be sent, with its retries."""
        async with self._turn:
            pause = self._full_at - self.monotonic()
            if pause > 0:
                await self.sleep(pause)
            yield

    def note(self, headers: Mapping[str, str]) -> None:
        """Reads the remaining quota from a reply's headers."""
        after = _RESETS.fullmatch(headers.get("x-ms-user-quota-resets-after", ""))
        if after is not None and headers.get("x-ms-user-quota-remaining") == "0":
            hours, minutes, seconds = (int(part) for part in after.groups())
            self._full_at = self.monotonic() + min(hours * 3600 + minutes * 60 + seconds, _MAX_PAUSE)


@dataclass(frozen=True, slots=True)
class ResourceGraphLister:
    """An `AccountLister`. The client of any subscription serves for all of an entry."""

    open_client: ListAccess
    _quotas: defaultdict[Credential | None, Quota] = field(default_factory=lambda: defaultdict(Quota))

    def scopes(self, entry: Discover) -> Sequence[ListingScope]:
        """One scope for each 100 subscriptions."""
        groups = frozenset(fold(group) for group in entry.resource_groups)
        scopes: list[ListingScope] = []
        for start in range(0, len(entry.scopes), _SUBSCRIPTIONS):
            part = entry.scopes[start : start + _SUBSCRIPTIONS]
            name = f"/subscriptions/{part[0]}" if len(part) == 1 else f"Resource Graph, subscriptions from {part[0]} on"
            scopes.append(ListingScope(name, frozenset(part), groups, partial(self._pages, entry, part, name)))
        return scopes

    async def _pages(
        self, entry: Discover, part: tuple[str, ...], name: str
    ) -> AsyncGenerator[Sequence[ListedAccount | UnlistedScope], None]:
        client, caller = await self.open_client(entry, part[0])
        query = _Query(client, caller, part, name, self._quotas[entry.credential])
        seen: set[str] = set()
        async for rows in query.pages(accounts_query(entry.resource_groups)):
            accounts = [ListedAccount.of(*map(row.get, ("id", "tags", "modes", "pool", "state"))) for row in rows]
            seen |= {fold(account.id.subscription) for account in accounts}
            yield accounts
        if seen.issuperset(part):
            return
        # If the identity may not see a subscription, Resource Graph returns no error, just no rows for it.
        async for rows in query.pages(_VISIBLE):
            seen |= {fold(str(row.get("subscriptionId", ""))) for row in rows}
        yield [_not_visible(subscription) for subscription in part if subscription not in seen]


@dataclass(frozen=True, slots=True)
class _Query:
    """Queries about one set of subscriptions."""

    client: BatchManagementClient
    caller: Caller
    subscriptions: tuple[str, ...]
    name: str
    quota: Quota

    async def pages(self, query: str) -> AsyncGenerator[Sequence[Mapping[str, object]], None]:
        """The pages of a query's result. Raises CallFailed if the result is incomplete."""
        count = 0
        reply: Mapping[str, object] = {}
        async for reply in follow(partial(self._send, query), self.name):
            data = as_list(reply.get("data"))
            rows = [row for row in map(as_mapping, data or ()) if row is not None]
            if data is None or len(rows) < len(data):
                raise invalid_response("the reply of Resource Graph has no rows")
            yield rows
            count += len(rows)
        # Without a clear `false` it is unknown whether the result is complete.
        whole, total = reply.get("resultTruncated") in ("false", False), reply.get("totalRecords")
        if not whole or (isinstance(total, int) and count < total):
            raise invalid_response(f"Resource Graph returned {count} of {total} rows of {self.name}")

    async def _send(self, query: str, token: str | None) -> tuple[Mapping[str, object], object]:
        options = {"$top": _ROWS, "resultFormat": "objectArray", **({"$skipToken": token} if token else {})}
        body = {"query": query, "subscriptions": self.subscriptions, "options": options}

        async def post() -> Mapping[str, object]:
            response = await send(self.client, HttpRequest("POST", _PATH, json=body))
            self.quota.note(response.headers)
            return as_mapping(response.json()) or {}

        async with self.quota.turn():
            reply = await self.caller.call(QUERY, self.name, post)
        return reply, reply.get("$skipToken")


def _not_visible(subscription: str) -> UnlistedScope:
    scope = f"/subscriptions/{subscription}"
    record = FailureRecord(
        kind="cloud_error",
        summary=f"Resource Graph shows nothing of {scope}: it does not exist, or this identity may not see it",
        hint=f"check subscription_id, and that the identity has Microsoft.Batch/batchAccounts/read on {scope}",
    )
    return UnlistedScope(scope, record, subscription)
