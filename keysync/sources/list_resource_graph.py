"""Lists accounts of many subscriptions through Azure Resource Graph. Only `keysync.cli.compose` imports this, for an extra."""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from azure.mgmt.resourcegraph.aio import ResourceGraphClient
from azure.mgmt.resourcegraph.models import QueryRequest, QueryRequestOptions

from keysync.azure.retry import Caller
from keysync.calls import Operation
from keysync.config.settings import Discover
from keysync.failures import CallFailed, FailureRecord
from keysync.names import fold
from keysync.sources.list_batch import MOST_PAGES
from keysync.sources.listing import ListedAccount, ListingPage, ListingScope, UnlistedScope

QUERY: Final = Operation("resource_graph", "queryResources")

# Microsoft's guidance for throttled requests groups subscriptions by the hundred; the service takes far more.
_SUBSCRIPTIONS: Final = 100
_ROWS: Final = 1000  # the most that a page may have
_RESETS: Final = re.compile(r"(\d{1,2}):(\d{1,2}):(\d{1,2})(?:\.\d+)?")
_LONGEST: Final = 60.0  # no reply may stop the listing for longer
_ACCOUNTS: Final = "resources | where type =~ 'microsoft.batch/batchaccounts'"
_COLUMNS: Final = (
    " | project id, tags, modes = properties.allowedAuthenticationModes,"
    " pool = tostring(properties.poolAllocationMode), state = tostring(properties.provisioningState)"
    # Pages of a query without an order may repeat rows and leave others out.
    " | order by id asc"
)
_VISIBLE: Final = (
    "resourcecontainers | where type =~ 'microsoft.resources/subscriptions' | project subscriptionId"
    " | order by subscriptionId asc"
)


def literal(text: str) -> str:
    """`text` as a literal of KQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"


def accounts_query(groups: Sequence[str]) -> str:
    """The query for the accounts of `groups`, of all where none is named."""
    within = f" | where resourceGroup in~ ({', '.join(literal(group) for group in groups)})" if groups else ""
    return f"{_ACCOUNTS}{within}{_COLUMNS}"


@dataclass(frozen=True, slots=True)
class _Answer:
    rows: Sequence[Mapping[str, Any]]
    total: int
    truncated: bool
    token: str | None


class Quota:
    """Lets queries of one identity through one at a time, and none while its quota is spent.

    The service counts 15 of them in 5 seconds, and says in each reply what is left and when it is full again
    (learn.microsoft.com/azure/governance/resource-graph/concepts/guidance-for-throttled-requests). `sleep` and `monotonic`
    (seconds) are handed in so that tests control time.
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
    async def turn(self) -> AsyncIterator[None]:
        """A block in which one query may be made, retries included."""
        async with self._turn:
            pause = self._full_at - self._monotonic()
            if pause > 0:
                await self._sleep(pause)
            yield

    def note(self, headers: Mapping[str, str]) -> None:
        """Reads what a reply says is left."""
        after = _RESETS.fullmatch(headers.get("x-ms-user-quota-resets-after", ""))
        if after is None or headers.get("x-ms-user-quota-remaining") != "0":
            return
        hours, minutes, seconds = (int(part) for part in after.groups())
        self._full_at = self._monotonic() + min(hours * 3600 + minutes * 60 + seconds, _LONGEST)


class ResourceGraphLister:
    """A `AccountLister`; `open_` gives the client and the caller for an entry."""

    def __init__(self, open_: Callable[[Discover], Awaitable[tuple[ResourceGraphClient, Caller]]]) -> None:
        self._open = open_
        self._quotas: defaultdict[ResourceGraphClient, Quota] = defaultdict(Quota)  # a client has one identity

    def scopes(self, entry: Discover) -> Sequence[ListingScope]:
        """One for each hundred subscriptions."""
        parts = [entry.scopes[at : at + _SUBSCRIPTIONS] for at in range(0, len(entry.scopes), _SUBSCRIPTIONS)]
        return [self._scope(entry, part) for part in parts]

    def _scope(self, entry: Discover, part: tuple[str, ...]) -> ListingScope:
        name = f"/subscriptions/{part[0]}" if len(part) == 1 else f"Resource Graph, subscriptions from {part[0]} on"
        groups = frozenset(fold(group) for group in entry.resource_groups)
        return ListingScope(name, frozenset(part), groups, partial(self._pages, entry, part, name))

    async def _pages(self, entry: Discover, part: tuple[str, ...], name: str) -> AsyncGenerator[ListingPage, None]:
        client, caller = await self._open(entry)
        ask = _Asker(client, caller, part, name, self._quotas[client])
        seen: set[str] = set()
        async for rows in ask.all(accounts_query(entry.resource_groups)):
            page = [_row(row) for row in rows]
            seen |= {fold(row.id.subscription) for row in page}
            yield ListingPage(page)
        if seen.issuperset(part):
            return
        # Resource Graph does not say so where the identity may not see a subscription: it has no rows of it.
        async for rows in ask.all(_VISIBLE):
            seen |= {fold(str(row.get("subscriptionId", ""))) for row in rows}
        yield ListingPage(static_only=[_unseen(subscription) for subscription in part if subscription not in seen])


class _Asker:
    """Asks queries of one set of subscriptions."""

    def __init__(
        self, client: ResourceGraphClient, caller: Caller, subscriptions: Sequence[str], name: str, quota: Quota
    ) -> None:
        self._client = client
        self._caller = caller
        self._subscriptions = list(subscriptions)
        self._name = name
        self._quota = quota

    async def all(self, query: str) -> AsyncGenerator[Sequence[Mapping[str, Any]], None]:
        """The pages of a query's result. Raises CallFailed where it is not whole."""
        token: str | None = None
        seen: set[str] = set()
        count = 0
        for _ in range(MOST_PAGES):
            async with self._quota.turn():
                answer = await self._caller.call(QUERY, self._name, partial(self._page, query, token))
            yield answer.rows
            count += len(answer.rows)
            if answer.token is None:
                if answer.truncated or count < answer.total:
                    raise _invalid(f"Resource Graph gave {count} of {answer.total} rows of {self._name}")
                return
            token = answer.token
            if token in seen:
                break
            seen.add(token)
        raise _invalid(f"the result for {self._name} does not end")

    async def _page(self, query: str, token: str | None) -> _Answer:
        options = QueryRequestOptions(skip_token=token, top=_ROWS, result_format="objectArray")
        request = QueryRequest(query=query, subscriptions=self._subscriptions, options=options)
        reply: Any = await self._client.resources(request, cls=self._noted)  # of its types the SDK checks none
        if not isinstance(reply.data, list) or not all(isinstance(row, Mapping) for row in reply.data):
            raise _invalid("the reply of Resource Graph has no rows")
        # The SDK leaves both None where the reply lacks them, and then nobody knows whether it is whole.
        total = reply.total_records if isinstance(reply.total_records, int) else len(reply.data)
        truncated = str(getattr(reply.result_truncated, "value", reply.result_truncated)).lower() != "false"
        return _Answer(reply.data, total, truncated, reply.skip_token or None)

    def _noted(self, response: Any, reply: Any, _: object) -> Any:  # noqa: ANN401  # the SDK's callback
        self._quota.note(response.http_response.headers)
        return reply


def _row(row: Mapping[str, Any]) -> ListedAccount:
    return ListedAccount.of(row.get("id"), row.get("tags"), row.get("modes"), row.get("pool"), row.get("state"))


def _unseen(subscription: str) -> UnlistedScope:
    scope = f"/subscriptions/{subscription}"
    record = FailureRecord(
        kind="cloud_error",
        summary=f"Resource Graph shows nothing of {scope}: it is not there, or not for this identity",
        hint=f"check subscription_id, and that the identity has Microsoft.Batch/batchAccounts/read on {scope}",
    )
    return UnlistedScope(scope, record, subscription)


def _invalid(summary: str) -> CallFailed:
    return CallFailed(FailureRecord(kind="invalid_response", summary=summary))
