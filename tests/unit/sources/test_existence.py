"""Whether a Batch account is gone, asked of the embedded Azure through the SDK: only two answers that agree are proof."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from keysync.azure.errors import AzureFailureTranslator
from keysync.azure.retry import Caller, RetryPolicy
from keysync.cli.compose import open_app
from keysync.emulator import Emulator, Fault
from keysync.failures import CallFailed
from keysync.secret.redact import Redactor
from keysync.sources.existence import BatchAccountExistence
from tests.support.azure import GROUP, SUBSCRIPTION, data
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
        async with open_app(config, config.accounts, Redactor(), lambda *_: None) as app:
            yield Side(azure, BatchAccountExistence(app.clients.subscription, caller))


async def test_an_account_that_answers_is_there(side: Side) -> None:
    """One look at the account is enough to keep its secrets; nothing is listed for it."""
    assert await side.directory.presence(arm_id("alpha")) == "there"
    assert (
        await side.directory.presence(arm_id("ALPHA").upper().replace("MICROSOFT.BATCH", "Microsoft.Batch")) == "there"
    )
    assert side.azure.counts["listAccounts"] == 0


@pytest.mark.parametrize("account", [arm_id("gone"), arm_id("gone", "another-group")], ids=["account", "group"])
async def test_an_account_that_is_nowhere_is_gone(side: Side, account: str) -> None:
    """A 404 for the account or its group and a listing of all pages without it are proof together."""
    assert await side.directory.presence(account) == "gone"
    assert side.azure.counts["listAccounts"] == 3


async def test_batchs_own_404_counts_as_that_of_resource_manager(side: Side) -> None:
    """`AccountNotFound` is what Batch answers where Resource Manager still knows the account; the listing decides with it."""
    side.fails("getAccount", 404, "AccountNotFound")
    assert await side.directory.presence(arm_id("vanished")) == "gone"
    assert await side.directory.presence(arm_id("beta")) == "there"
    side.azure.faults.clear()
    side.fails("getAccount", 404, "ApplicationNotFound")
    assert (await side.failure(arm_id("vanished"))).record.has_code("ApplicationNotFound")


async def test_an_account_in_the_listing_is_there_although_it_was_not_found(side: Side) -> None:
    """A 404 alone proves nothing: the last page of the listing still shows the account, in whatever case."""
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
async def test_any_other_answer_for_the_account_is_no_proof(side: Side, status: int, code: str) -> None:
    """Denied, unknown to this tenant, out of order: nobody can tell, and nothing is listed to guess."""
    side.fails("getAccount", status, code)
    assert (await side.failure(arm_id("gone"))).record.http_status == status
    assert side.azure.counts["listAccounts"] == 0


async def test_a_page_that_is_not_azures_is_no_proof(side: Side) -> None:
    """A 404 of a proxy has no code of Azure's, so it tells nothing of the account."""
    side.azure.faults.add(Fault(operation="getAccount", kind="html", status=404))
    assert (await side.failure(arm_id("gone"))).record.http_status == 404


async def test_an_unknown_subscription_is_no_proof(side: Side) -> None:
    """Another tenant's subscription looks like one that does not exist."""
    failure = await side.failure(arm_id("gone", subscription=OTHER_SUBSCRIPTION))
    assert failure.record.has_code("SubscriptionNotFound")


async def test_an_account_that_may_not_be_read_is_not_gone(side: Side) -> None:
    """An account whose role was taken away answers 403, and its secrets stay."""
    side.azure.state.accounts[arm_id("alpha").lower()].denied = frozenset({"getAccount"})
    assert (await side.failure(arm_id("alpha"))).record.http_status == 403


@pytest.mark.parametrize("status", [403, 400, 503])
async def test_a_listing_that_fails_is_no_proof(side: Side, status: int) -> None:
    """Without a listing a 404 stays a 404, and proves nothing."""
    side.fails("listAccounts", status, "AuthorizationFailed")
    assert (await side.failure(arm_id("gone"))).record.http_status == status


async def test_a_listing_that_breaks_on_its_second_page_is_no_proof(side: Side) -> None:
    """A listing counts whole or not at all; the next question lists anew."""
    side.answers("listAccounts", {"value": [], "nextLink": side.next_page("Mg")})
    side.fails("listAccounts", 403, "AuthorizationFailed", times=1)
    assert (await side.failure(arm_id("gone"))).record.http_status == 403
    assert side.azure.counts["listAccounts"] == 2
    assert await side.directory.presence(arm_id("gone")) == "gone"


async def test_a_second_page_that_azure_does_not_know_is_no_proof(side: Side) -> None:
    """A link to a page that is refused leaves the listing incomplete."""
    side.answers("listAccounts", {"value": [], "nextLink": side.next_page("not-a-token")})
    assert (await side.failure(arm_id("gone"))).record.has_code("InvalidSkipToken")


@pytest.mark.parametrize("body", ["<html>", [], {"value": None}, {"value": [{"name": "alpha"}]}, {}])
async def test_a_listing_that_is_none_is_no_proof(side: Side, body: object) -> None:
    """A reply of success that is no list of accounts with ids is a failure, not a list without the account."""
    for _ in range(4):
        side.answers("listAccounts", body)
    await side.failure(arm_id("gone"))


@pytest.mark.parametrize(
    "account",
    ["", "no ARM id", arm_id("alpha") + "/", arm_id("al-pha"), arm_id("alpha").replace("batchAccounts", "pools")],
)
async def test_what_is_no_id_of_a_batch_account_is_not_asked(side: Side, account: str) -> None:
    """A tag that somebody wrote by hand is neither sent to Azure nor taken as proof."""
    await side.failure(account)
    assert sum(side.azure.counts[each] for each in ("getAccount", "listAccounts", "unknown")) == 0


async def test_a_subscription_is_listed_once(side: Side) -> None:
    """However many accounts are gone, one listing serves a run."""
    accounts = [arm_id(f"gone{index}") for index in range(9)]
    assert set(await asyncio.gather(*(side.directory.presence(each) for each in accounts))) == {"gone"}
    assert side.azure.counts["listAccounts"] == 3
