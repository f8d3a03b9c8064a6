"""Whether a Batch account is gone, through the SDK against the embedded Azure. Only two agreeing replies are proof."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from keysync.azure.errors import AzureFailureTranslator
from keysync.azure.retry import Caller, RetryPolicy
from keysync.emulator import Emulator, Fault
from keysync.failures import CallFailed
from keysync.secret.redact import Redactor
from keysync.sources.list_batch import BatchAccountExistence
from tests.support.azure import GROUP, SUBSCRIPTION, data
from tests.support.runtimes import opened
from tests.support.settings import config_of

OTHER_SUBSCRIPTION = "99999999-2222-3333-4444-555555555555"


def arm_id(name: str, group: str = GROUP, subscription: str = SUBSCRIPTION) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Batch/batchAccounts/{name}"


async def at_once(_seconds: float) -> None:
    """A wait that takes no time."""
    await asyncio.sleep(0)


@dataclass
class Side:
    """A directory, and the Azure behind it, which holds three accounts and shows one a page."""

    azure: Emulator
    directory: BatchAccountExistence

    def fails(self, operation: str, status: int, code: str, **more: object) -> None:
        """Makes an operation fail."""
        fault = {"operation": operation, "status": status, "code": code, **more}
        self.azure.faults.add(Fault.model_validate(fault))

    def answers(self, operation: str, body: object) -> None:
        """Makes one call of an operation answer with `body`."""
        self.azure.faults.add(Fault(operation=operation, kind="body", body=json.dumps(body), times=1))

    def next_page(self, token: str) -> str:
        """A link to another page of the accounts."""
        path = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Batch/batchAccounts"
        return f"{self.azure.endpoints.resource_manager}{path}?api-version=2025-06-01&$skiptoken={token}"

    async def failure(self, account: str) -> CallFailed:
        """The failure that asking for `account` ends with."""
        with pytest.raises(CallFailed) as caught:
            await self.directory.presence(account)
        return caught.value


@pytest.fixture
async def side(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Side]:
    """Composed as the command line composes it, but for the waits between attempts."""
    content = data("alpha", "beta", "gamma").model_copy(update={"page_size": 1})
    async with Emulator(content) as azure:
        ends = azure.endpoints
        monkeypatch.setenv("AZURE_TENANT_ID", ends.tenant_id)
        monkeypatch.setenv("AZURE_CLIENT_ID", ends.client_id)
        monkeypatch.setenv("AZURE_CLIENT_SECRET", ends.client_secret)
        for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        cloud = {"authority": ends.authority, "resource_manager": ends.resource_manager, "ca_bundle": ends.ca_bundle}
        account = {"subscription_id": SUBSCRIPTION, "resource_group": GROUP, "name": "alpha", "vaults": ["main"]}
        vaults = {"main": {"url": ends.vaults["main"]}}
        config = config_of(
            {"cloud": cloud, "credential": {"type": "environment"}, "vaults": vaults, "accounts": [account]}
        )
        caller = Caller(
            AzureFailureTranslator(Redactor()), RetryPolicy(sleep=at_once), timeout=5, observe=lambda *_: None
        )
        async with opened(config) as (clients, _):
            yield Side(azure, BatchAccountExistence(clients.subscription, caller))


async def test_a_found_account_exists(side: Side) -> None:
    """One GET is enough to keep its secrets; nothing is listed."""
    assert await side.directory.presence(arm_id("alpha")) == "there"
    assert (
        await side.directory.presence(arm_id("ALPHA").upper().replace("MICROSOFT.BATCH", "Microsoft.Batch")) == "there"
    )
    assert side.azure.counts["listAccounts"] == 0


@pytest.mark.parametrize("account", [arm_id("gone"), arm_id("gone", "another-group")], ids=["account", "group"])
async def test_an_account_without_any_trace_is_gone(side: Side, account: str) -> None:
    """A 404 for the account or its group, together with a complete listing without it, is proof."""
    assert await side.directory.presence(account) == "gone"
    assert side.azure.counts["listAccounts"] == 3


async def test_a_404_of_batch_counts_like_one_of_resource_manager(side: Side) -> None:
    """Batch returns `AccountNotFound` while Resource Manager still knows the account. The listing decides too."""
    side.fails("getAccount", 404, "AccountNotFound")
    assert await side.directory.presence(arm_id("vanished")) == "gone"
    assert await side.directory.presence(arm_id("beta")) == "there"
    side.azure.faults.clear()
    side.fails("getAccount", 404, "ApplicationNotFound")
    assert (await side.failure(arm_id("vanished"))).record.has_code("ApplicationNotFound")


async def test_an_account_in_the_listing_exists_in_spite_of_a_404(side: Side) -> None:
    """A 404 alone is no proof: the last page of the listing shows the account, in any case."""
    side.fails("getAccount", 404, "ResourceNotFound")
    assert await side.directory.presence(arm_id("gamma", GROUP.upper())) == "there"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "AuthorizationFailed"),
        (404, "SubscriptionNotFound"),
        (404, "InvalidResourceType"),
        (401, "InvalidAuthenticationTokenTenant"),
        (409, "ScopeLocked"),
        (503, "ServiceUnavailable"),
    ],
)
async def test_other_replies_for_the_account_are_no_proof(side: Side, status: int, code: str) -> None:
    """Denied, unknown tenant, server error: the answer is unknown, and nothing is listed."""
    side.fails("getAccount", status, code)
    assert (await side.failure(arm_id("gone"))).record.http_status == status
    assert side.azure.counts["listAccounts"] == 0


async def test_a_404_of_a_proxy_is_no_proof(side: Side) -> None:
    """It has no error code of Azure."""
    side.azure.faults.add(Fault(operation="getAccount", kind="html", status=404))
    assert (await side.failure(arm_id("gone"))).record.http_status == 404


async def test_an_unknown_subscription_is_no_proof(side: Side) -> None:
    """A subscription of another tenant looks like a missing one."""
    failure = await side.failure(arm_id("gone", subscription=OTHER_SUBSCRIPTION))
    assert failure.record.has_code("SubscriptionNotFound")


async def test_an_account_that_may_not_be_read_is_not_gone(side: Side) -> None:
    """Without its role the identity gets 403, and the secrets stay."""
    side.azure.state.accounts[arm_id("alpha").lower()].denied = frozenset({"getAccount"})
    assert (await side.failure(arm_id("alpha"))).record.http_status == 403


@pytest.mark.parametrize("status", [403, 400, 503])
async def test_a_failed_listing_is_no_proof(side: Side, status: int) -> None:
    """A 404 alone proves nothing."""
    side.fails("listAccounts", status, "AuthorizationFailed")
    assert (await side.failure(arm_id("gone"))).record.http_status == status


async def test_a_listing_that_fails_on_its_second_page_is_no_proof(side: Side) -> None:
    """A listing counts only if it is complete. The next check lists again."""
    side.answers("listAccounts", {"value": [], "nextLink": side.next_page("Mg")})
    side.fails("listAccounts", 403, "AuthorizationFailed", times=1)
    assert (await side.failure(arm_id("gone"))).record.http_status == 403
    assert side.azure.counts["listAccounts"] == 2
    assert await side.directory.presence(arm_id("gone")) == "gone"


async def test_a_rejected_link_to_the_second_page_is_no_proof(side: Side) -> None:
    """The listing is then incomplete."""
    side.answers("listAccounts", {"value": [], "nextLink": side.next_page("not-a-token")})
    assert (await side.failure(arm_id("gone"))).record.has_code("InvalidSkipToken")


@pytest.mark.parametrize("body", ["<html>", [], {"value": None}, {"value": [{"name": "alpha"}]}, {}])
async def test_a_malformed_listing_is_no_proof(side: Side, body: object) -> None:
    """A successful reply that is not a list of accounts with ids is a failure, not a list without the account."""
    for _ in range(4):
        side.answers("listAccounts", body)
    await side.failure(arm_id("gone"))


@pytest.mark.parametrize(
    "account",
    ["", "no ARM id", arm_id("alpha") + "/", arm_id("al-pha"), arm_id("alpha").replace("batchAccounts", "pools")],
)
async def test_an_invalid_id_is_not_requested(side: Side, account: str) -> None:
    """An id from a hand-written tag is neither sent to Azure nor taken as proof."""
    await side.failure(account)
    assert sum(side.azure.counts[each] for each in ("getAccount", "listAccounts", "unknown")) == 0


async def test_a_subscription_is_listed_once(side: Side) -> None:
    """One listing serves all missing accounts of a run."""
    accounts = [arm_id(f"gone{index}") for index in range(9)]
    assert set(await asyncio.gather(*(side.directory.presence(each) for each in accounts))) == {"gone"}
    assert side.azure.counts["listAccounts"] == 3
