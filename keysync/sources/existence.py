"""Whether a Batch account exists: told only where a look at the account and a complete listing agree."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

from azure.core.exceptions import DecodeError
from azure.mgmt.batch.aio import BatchManagementClient

from keysync.azure.retry import Caller
from keysync.calls import Operation
from keysync.failures import CallFailed, FailureRecord
from keysync.names import fold
from keysync.sources.arm_id import AccountId
from keysync.sources.azure_batch import GET_ACCOUNT

LIST_ACCOUNTS: Final = Operation("batch", "listAccounts")

# SubscriptionNotFound is none of them: it is also what an identity of another tenant is told.
# AccountNotFound is Batch's own 404, which Resource Manager passes on.
_PROOF: Final = ("ResourceNotFound", "ResourceGroupNotFound", "AccountNotFound")


class BatchAccountExistence:
    """Answers for one run: each subscription is listed once at most."""

    def __init__(self, client_of: Callable[[str], Awaitable[BatchManagementClient]], caller: Caller) -> None:
        self._client_of = client_of
        self._caller = caller
        self._listed: dict[str, frozenset[str]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def presence(self, account: str) -> Literal["there", "gone"]:
        """`gone` only on a 404 for the account, ARM's or Batch's, and its absence from a complete listing of its subscription.

        ARM asks for permission before it looks, so an identity that may not read gets 403 here and never 404. Raises
        CallFailed where nobody can tell.
        """
        place = AccountId.parse(account)
        if place is None:
            raise CallFailed(FailureRecord(kind="internal", summary=f"no ARM id of a Batch account: {account}"))
        client = await self._client_of(place.subscription)
        if await self._answers(client, account, place.group, place.name):
            return "there"
        return "there" if fold(account) in await self._listing(client, fold(place.subscription)) else "gone"

    async def _answers(self, client: BatchManagementClient, account: str, group: str, name: str) -> bool:
        try:
            await self._caller.call(GET_ACCOUNT, account, lambda: client.batch_account.get(group, name))
        except CallFailed as failure:
            if failure.record.http_status == 404 and failure.record.has_code(*_PROOF):
                return False
            raise
        return True

    async def _listing(self, client: BatchManagementClient, subscription: str) -> frozenset[str]:
        async with self._locks[subscription]:
            if subscription not in self._listed:
                scope = f"/subscriptions/{subscription}"
                self._listed[subscription] = await self._caller.call(
                    LIST_ACCOUNTS, scope, lambda: _ids(client, subscription)
                )
            return self._listed[subscription]


async def _ids(client: Any, subscription: str) -> frozenset[str]:  # noqa: ANN401  # the SDK's pager has no types
    ids = [account.id async for account in client.batch_account.list()]
    if not all(isinstance(each, str) for each in ids):
        # A reply with less than accounts in it must not read as a listing without the account.
        raise DecodeError("the listing holds accounts without an id")
    found = frozenset(fold(each) for each in ids)
    if not all(each.startswith(f"/subscriptions/{subscription}/") for each in found):
        raise DecodeError("the listing holds accounts of another subscription")
    return found
