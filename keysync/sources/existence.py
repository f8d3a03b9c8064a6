"""Whether a Batch account exists. It counts as deleted only if a GET and a complete listing agree."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Literal

from azure.mgmt.batch.aio import BatchManagementClient

from keysync.azure.retry import Caller
from keysync.failures import CallFailed, FailureRecord
from keysync.names import fold
from keysync.sources.azure_batch import GET_ACCOUNT
from keysync.sources.list_batch import account_pages
from keysync.sources.listing import AccountId, invalid_response

# SubscriptionNotFound is no proof: an identity of another tenant gets it too.
# AccountNotFound is Batch's own 404, which Resource Manager passes on.
_PROOF: Final = ("ResourceNotFound", "ResourceGroupNotFound", "AccountNotFound")


class BatchAccountExistence:
    """Checks accounts for one run; lists each subscription at most once."""

    def __init__(
        self,
        client_of: Callable[[str], Awaitable[BatchManagementClient]],
        caller: Caller,
        api_version: str | None = None,
    ) -> None:
        self._client_of = client_of
        self._caller = caller
        self._api_version = api_version
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
            return "there" if account_id.key in await self._listing(client, fold(account_id.subscription)) else "gone"
        return "there"

    async def _listing(self, client: BatchManagementClient, subscription: str) -> frozenset[str]:
        """The accounts of a subscription, as `AccountId.key`."""
        async with self._locks[subscription]:
            if subscription not in self._listed:
                keys: set[str] = set()
                scope = f"/subscriptions/{subscription}"
                async for page in account_pages(client, self._caller, scope, self._api_version):
                    if any(fold(account.id.subscription) != subscription for account in page):
                        raise invalid_response("the listing contains accounts of another subscription")
                    keys.update(account.id.key for account in page)
                self._listed[subscription] = frozenset(keys)
            return self._listed[subscription]
