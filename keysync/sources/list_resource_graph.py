"""Lists accounts of many subscriptions through Azure Resource Graph. Only `keysync.cli.compose` imports it: it needs an extra."""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

from azure.mgmt.resourcegraph.aio import ResourceGraphClient
from azure.mgmt.resourcegraph.models import QueryRequest, QueryRequestOptions

from keysync.azure.retry import Caller
from keysync.calls import Operation
from keysync.config.model import Discover
from keysync.failures import CallFailed, FailureRecord
from keysync.names import fold
from keysync.sources.list_batch import MAX_PAGES
from keysync.sources.listing import ListedAccount, ListingPage, ListingScope, UnlistedScope

QUERY: Final = Operation("resource_graph", "queryResources")

# Microsoft's guidance for throttled requests uses groups of 100 subscriptions; the service accepts far more.
_SUBSCRIPTIONS: Final = 100
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
    rows: Sequence[Mapping[str, Any]]
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
    """An `AccountLister`. `open_client` returns the client and the caller for an entry."""

    def __init__(self, open_client: Callable[[Discover], Awaitable[tuple[ResourceGraphClient, Caller]]]) -> None:
        self._open_client = open_client
        self._quotas: defaultdict[ResourceGraphClient, Quota] = defaultdict(Quota)  # a client has one identity

    def scopes(self, entry: Discover) -> Sequence[ListingScope]:
        """One scope for each 100 subscriptions."""
        parts = [entry.scopes[at : at + _SUBSCRIPTIONS] for at in range(0, len(entry.scopes), _SUBSCRIPTIONS)]
        return [self._scope(entry, part) for part in parts]

    def _scope(self, entry: Discover, part: tuple[str, ...]) -> ListingScope:
        name = f"/subscriptions/{part[0]}" if len(part) == 1 else f"Resource Graph, subscriptions from {part[0]} on"
        groups = frozenset(fold(group) for group in entry.resource_groups)
        return ListingScope(name, frozenset(part), groups, partial(self._pages, entry, part, name))

    async def _pages(self, entry: Discover, part: tuple[str, ...], name: str) -> AsyncGenerator[ListingPage, None]:
        client, caller = await self._open_client(entry)
        query = _Query(client, caller, part, name, self._quotas[client])
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
        self, client: ResourceGraphClient, caller: Caller, subscriptions: Sequence[str], name: str, quota: Quota
    ) -> None:
        self._client = client
        self._caller = caller
        self._subscriptions = list(subscriptions)
        self._name = name
        self._quota = quota

    async def pages(self, query: str) -> AsyncGenerator[Sequence[Mapping[str, Any]], None]:
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
        options = QueryRequestOptions(skip_token=token, top=_ROWS, result_format="objectArray")
        request = QueryRequest(query=query, subscriptions=self._subscriptions, options=options)
        reply: Any = await self._client.resources(request, cls=self._note_quota)  # the SDK does not check types
        data: object = reply.data
        rows = cast("list[object]", data) if isinstance(data, list) else None
        if rows is None or not all(isinstance(row, Mapping) for row in rows):
            raise _invalid("the reply of Resource Graph has no rows")
        # The SDK leaves both None if the reply lacks them; then it is unknown whether the result is complete.
        total = reply.total_records if isinstance(reply.total_records, int) else len(rows)
        truncated = str(getattr(reply.result_truncated, "value", reply.result_truncated)).lower() != "false"
        return _Page(cast("list[Mapping[str, Any]]", rows), total, truncated, reply.skip_token or None)

    def _note_quota(self, response: Any, reply: Any, _: object) -> Any:  # noqa: ANN401  # the SDK's callback
        self._quota.note(response.http_response.headers)
        return reply


def _listed_account(row: Mapping[str, Any]) -> ListedAccount:
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
