"""Whether a Batch account exists. It counts as deleted only if a GET and a complete listing agree."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
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

# SubscriptionNotFound is no proof: an identity of another tenant gets it too.
# AccountNotFound is Batch's own 404, which Resource Manager passes on.
_PROOF: Final = ("ResourceNotFound", "ResourceGroupNotFound", "AccountNotFound")


class BatchAccountExistence:
    """Checks accounts for one run; lists each subscription at most once."""

    def __init__(self, client_of: Callable[[str], Awaitable[BatchManagementClient]], caller: Caller) -> None:
        self._client_of = client_of
        self._caller = caller
        self._listed: dict[str, frozenset[str]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def presence(self, account: str) -> Literal["there", "gone"]:
        """``gone`` only after a 404 for the account (by ARM or Batch), if a complete listing of its subscription lacks it too.

        ARM checks permissions first, so an identity without read permission gets 403 here and never 404. Raises CallFailed if
        the answer is not certain.
        """
        account_id = AccountId.parse(account)
        if account_id is None:
            raise CallFailed(FailureRecord(kind="internal", summary=f"not the ARM id of a Batch account: {account}"))
        client = await self._client_of(account_id.subscription)
        get = partial(client.batch_account.get, account_id.group, account_id.name)
        try:
            await self._caller.call(GET_ACCOUNT, account, get)
        except CallFailed as failure:
            if failure.record.http_status != 404 or not failure.record.has_code(*_PROOF):
                raise
            return "there" if fold(account) in await self._listing(client, fold(account_id.subscription)) else "gone"
        return "there"

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
    if not all(isinstance(resource_id, str) for resource_id in ids):
        # An incomplete entry must not pass for a listing without the account.
        raise DecodeError("the listing contains accounts without an id")
    folded = frozenset(fold(resource_id) for resource_id in ids)
    if not all(resource_id.startswith(f"/subscriptions/{subscription}/") for resource_id in folded):
        raise DecodeError("the listing contains accounts of another subscription")
    return folded
