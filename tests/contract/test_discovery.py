"""Both ways to list accounts, through the SDKs against the embedded Azure."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from azure.mgmt.batch.aio import BatchManagementClient

from keysync.emulator import Emulator, EmulatorData, Fault
from keysync.sources.discovery import Inventory
from keysync.sources.list_batch import API_VERSION
from keysync.sync.run import run_sync
from tests.support import runtimes
from tests.support.settings import config_of

A, B = "aaaaaaaa-2222-3333-4444-555555555555", "bbbbbbbb-2222-3333-4444-555555555555"
NOBODYS = "cccccccc-2222-3333-4444-555555555555"
ROUTES = ("list", "resource_graph")


@dataclass
class World:
    """An Azure, and a runtime for a configuration of it."""

    azure: Emulator
    runtime: Any

    async def list(self) -> Inventory:
        return await self.runtime.discovery.list()


Opener = Callable[..., AbstractAsyncContextManager[World]]


def accounts() -> list[dict[str, Any]]:
    return [
        *({"subscription_id": A, "resource_group": "rg-west", "name": f"west{n}"} for n in range(5)),
        {"subscription_id": A, "resource_group": "RG-north", "name": "north", "tags": {"Keysync": "yes"}},
        {"subscription_id": A, "resource_group": "RG-north", "name": "nokeys", "allowed_authentication_modes": ["AAD"]},
        {"subscription_id": B, "resource_group": "rg", "name": "users", "pool_allocation_mode": "UserSubscription"},
        {"subscription_id": B, "resource_group": "rg", "name": "young", "provisioning_state": "Creating"},
        {"subscription_id": B, "resource_group": "rg", "name": "beta", "tags": {"vault": "second"}},
    ]


@pytest.fixture
def open_world(monkeypatch: pytest.MonkeyPatch) -> Opener:
    @asynccontextmanager
    async def opened(*entries: dict[str, Any], **more: Any) -> AsyncIterator[World]:
        content = {
            "accounts": accounts(),
            "vaults": [{"name": "main"}, {"name": "second"}],
            "page_size": 2,
            "graph_page_size": 2,
        }
        async with Emulator(EmulatorData.model_validate(content)) as azure:
            ends = azure.endpoints
            for name, value in (
                ("AZURE_TENANT_ID", ends.tenant_id),
                ("AZURE_CLIENT_ID", ends.client_id),
                ("AZURE_CLIENT_SECRET", ends.client_secret),
            ):
                monkeypatch.setenv(name, value)
            for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
                monkeypatch.delenv(name, raising=False)
            document = {
                "cloud": {
                    "authority": ends.authority,
                    "resource_manager": ends.resource_manager,
                    "ca_bundle": ends.ca_bundle,
                },
                "credential": {"type": "environment"},
                "vaults": {name: {"url": url} for name, url in ends.vaults.items()},
                "discover": [{"subscriptions": [A, B], "vaults": ["main"], **entry} for entry in entries],
                "timeouts": {"request": "2s", "account": "20s"},
                **more,
            }
            config = config_of(document)
            async with runtimes.opened(config) as (_, runtime):
                yield World(azure, runtime)

    return opened


def names(listing: Inventory) -> list[str]:
    return [account.name for account in listing.accounts]


@pytest.mark.parametrize("via", ROUTES)
async def test_both_listers_find_the_same_accounts(open_world: Opener, via: str) -> None:
    """Over pages and subscriptions. Accounts without keys are reported with a reason. keysync sends list requests
    only."""
    async with open_world({"via": via, "vaults_by_tag": "Vault"}) as world:
        listing = await world.list()
        assert names(listing) == ["north", "west0", "west1", "west2", "west3", "west4", "beta"]
        assert [one.resource_id.rsplit("/", 1)[-1] for one in listing.skipped] == ["nokeys", "users", "young"]
        assert not any(one.refused for one in listing.skipped)
        assert listing.complete
        assert listing.accounts[0].resource_group == "RG-north"
        assert [account.vaults for account in listing.accounts[-2:]] == [("main",), ("second",)]
        asked = {"list": {"token", "listAccounts"}, "resource_graph": {"token", "queryResources"}}
        assert set(world.azure.counts) <= asked[via]
        assert world.azure.counts["listAccounts"] == (6 if via == "list" else 0)


@pytest.mark.parametrize("via", ROUTES)
async def test_groups_names_and_tags_filter_accounts(open_world: Opener, via: str) -> None:
    """The service filters by group, one request for each or in the query; keysync filters the rest."""
    west = {
        "via": via,
        "subscriptions": [A],
        "resource_groups": ["RG-WEST"],
        "name": "west?",
        "exclude": ["*0", "west1"],
    }
    async with open_world(west, {"via": via, "tags": {"keysync": "yes"}, "exclude": []}) as world:
        listing = await world.list()
        assert sorted(names(listing)) == ["north", "west2", "west3", "west4"]
        assert listing.complete
        assert listing.warnings == ()


def from_request(azure: Emulator, number: int, fault: Fault) -> None:
    """Activates `fault` when the list request with that number (from 0) arrives."""
    seen = 0

    async def arrived(_index: int, operation: str, _target: str, stage: str) -> None:
        nonlocal seen
        if stage == "before" and operation in {"listAccounts", "queryResources"}:
            if seen == number:
                azure.faults.add(fault)
            seen += 1

    azure.hooks.install(arrived)


DENIED = {"status": 403, "code": "AuthorizationFailed", "message": "The client may not."}


@pytest.mark.parametrize("via", ROUTES)
async def test_a_failed_page_keeps_the_earlier_pages(open_world: Opener, via: str) -> None:
    """Every page from the second one fails: the first page is served, with the CloudError."""
    async with open_world({"via": via, "subscriptions": [A]}) as world:
        from_request(world.azure, 1, Fault.model_validate(DENIED))
        listing = await world.list()
        assert 0 < len(listing.accounts) <= 2
        assert not listing.complete
        (problem,) = listing.problems
        assert problem.record.http_status == 403
        assert problem.record.cloud_error is not None
        assert problem.record.cloud_error.code == "AuthorizationFailed"
        assert "Microsoft.Batch/batchAccounts/read" in (problem.record.hint or "")
        world.azure.faults.clear()
        world.azure.hooks.install(None)
        assert len((whole := await world.list()).accounts) == 6
        assert whole.complete
        world.azure.faults.add(Fault.model_validate(DENIED))
        kept = await world.list()
        assert names(kept) == names(whole)
        assert not kept.complete
        assert kept.problems[0].kept == 7  # the one without keys is known too


async def test_one_subscription_without_permission_fails_alone(open_world: Opener) -> None:
    """The other one is listed. The same holds for a subscription and a group that do not exist."""
    async with open_world(
        {}, {"subscriptions": [NOBODYS]}, {"subscriptions": [A], "resource_groups": ["nope"]}
    ) as world:
        world.azure.faults.add(Fault.model_validate({**DENIED, "operation": "listAccounts", "target": B}))
        listing = await world.list()
        assert "west0" in names(listing)
        assert "beta" not in names(listing)
        assert not listing.complete
        codes = {(problem.entry, problem.scope): problem.record.code for problem in listing.problems}
        assert codes == {
            (0, f"/subscriptions/{B}"): "AuthorizationFailed",
            (1, f"/subscriptions/{NOBODYS}"): "SubscriptionNotFound",
            (2, f"/subscriptions/{A}/resourceGroups/nope"): "ResourceGroupNotFound",
        }


async def test_a_subscription_invisible_to_resource_graph_is_reported(open_world: Opener) -> None:
    """Resource Graph silently omits such a subscription, so keysync asks which ones are visible."""
    async with open_world({"via": "resource_graph", "subscriptions": [A, NOBODYS]}) as world:
        listing = await world.list()
        assert len(listing.accounts) == 6
        assert not listing.complete
        (problem,) = listing.problems
        assert problem.scope == f"/subscriptions/{NOBODYS}"
        assert "shows nothing" in problem.record.summary
        assert NOBODYS in (problem.record.hint or "")


async def test_a_visible_subscription_without_accounts_is_complete(open_world: Opener) -> None:
    """No rows, but a visible subscription: the listing is complete."""
    async with open_world({"via": "resource_graph", "resource_groups": ["rg"]}) as world:
        listing = await world.list()
        assert names(listing) == ["beta"]
        assert listing.complete


def graph(**more: Any) -> str:
    ids = f"/subscriptions/{A}/resourceGroups/rg/providers/Microsoft.Batch/batchAccounts"
    rows = [{"id": f"{ids}/one"}, {"id": f"{ids}/two"}]
    return json.dumps({"totalRecords": 2, "count": 2, "resultTruncated": "false", "data": rows, **more})


@pytest.mark.parametrize(
    ("body", "found", "summary"),
    [
        (graph(resultTruncated="true"), 2, "returned 2 of 2 rows"),
        (graph(totalRecords=3), 2, "returned 2 of 3 rows"),
        (graph(**{"$skipToken": "round"}), 2, "does not end"),
        (graph(data={"columns": [], "rows": []}), 0, "has no rows"),
        (graph(data=[{"id": "/subscriptions/x"}]), 0, "without the id of a Batch account"),
        ("{}", 0, "has no rows"),
        ("[]", 0, ""),
    ],
)
async def test_an_incomplete_result_of_resource_graph_is_a_failure(
    open_world: Opener, body: str, found: int, summary: str
) -> None:
    """Truncated, too short, without an end, or without a result."""
    async with open_world({"via": "resource_graph", "subscriptions": [A]}) as world:
        world.azure.faults.add(Fault(operation="queryResources", kind="body", body=body))
        listing = await world.list()
        assert len(listing.accounts) == found
        assert not listing.complete
        assert summary in listing.problems[0].record.summary


@pytest.mark.parametrize(
    ("fault", "summary"),
    [
        ({"kind": "body", "body": "{}"}, "the body of the reply could not be understood"),
        ({"kind": "body", "body": '{"value": null}'}, "the body of the reply could not be understood"),
        ({"kind": "body", "body": '{"value": {"a": 1}}'}, "the body of the reply could not be understood"),
        ({"kind": "body", "body": '{"value": [null]}'}, "without the id of a Batch account"),
        ({"kind": "body", "body": '{"value": [{"name": "x"}]}'}, "without the id of a Batch account"),
    ],
)
async def test_a_malformed_list_is_not_an_empty_list(open_world: Opener, fault: dict[str, Any], summary: str) -> None:
    """Otherwise all accounts would disappear at once."""
    async with open_world({"subscriptions": [A]}) as world:
        await world.list()
        world.azure.faults.add(Fault.model_validate({**fault, "operation": "listAccounts"}))
        listing = await world.list()
        assert len(listing.accounts) == 6
        assert not listing.complete
        assert summary in listing.problems[0].record.summary


async def test_listings_use_the_api_version_of_the_sdk_or_the_pinned_one(open_world: Opener) -> None:
    """A cloud may not know the newest version yet, so a pinned one holds for listings too."""
    credential: Any = object()
    assert BatchManagementClient(credential, A)._config.api_version == API_VERSION
    async with open_world({"subscriptions": [A]}, api_versions={"batch": "1999-01-01"}) as world:
        listing = await world.list()
        assert listing.problems[0].record.code is not None
        assert "1999-01-01" in listing.problems[0].record.summary


async def test_a_first_page_without_json_is_requested_again(open_world: Opener) -> None:
    """The SDK's own pager would read it as the last page."""
    async with open_world({"subscriptions": [A]}) as world:
        world.azure.faults.add(Fault(operation="listAccounts", kind="html", status=200, times=1))
        listing = await world.list()
        assert len(listing.accounts) == 6
        assert listing.complete


@pytest.mark.parametrize("link", ["https://localhost:1/steal", "https://evil.example/x", "http://localhost/x"])
async def test_a_link_to_another_service_is_not_followed(open_world: Opener, link: str) -> None:
    """The token would go with the request."""
    async with open_world({"subscriptions": [A]}) as world:
        body = json.dumps({"value": [], "nextLink": link})
        world.azure.faults.add(Fault(operation="listAccounts", kind="body", body=body))
        listing = await world.list()
        assert not listing.complete
        assert "not Resource Manager: not followed" in listing.problems[0].record.summary


async def test_circular_links_are_detected(open_world: Opener) -> None:
    """A service that repeats its pages is detected."""
    async with open_world({"subscriptions": [A]}) as world:
        link = f"{world.azure.endpoints.resource_manager}/subscriptions/{A}/providers/Microsoft.Batch/batchAccounts"
        body = json.dumps({"value": [], "nextLink": f"{link}?api-version=2024-07-01&$skiptoken=x"})
        world.azure.faults.add(Fault(operation="listAccounts", kind="body", body=body))
        listing = await world.list()
        assert "does not end" in listing.problems[0].record.summary
        assert world.azure.counts["listAccounts"] == 2


async def test_a_hung_list_ends_at_its_deadline(open_world: Opener) -> None:
    """The other subscription is served."""
    timeouts = {"request": "30s", "account": "500ms"}
    async with open_world({}, timeouts=timeouts) as world:
        world.azure.faults.add(Fault(operation="listAccounts", target=B, kind="hang"))
        listing = await world.list()
        assert len(listing.accounts) == 6
        assert listing.problems[0].record.kind == "timeout"


async def test_covered_accounts_can_grow_and_shrink(open_world: Opener) -> None:
    """Clients are opened when an account needs them; a subscription is forgotten when no account needs it."""
    async with open_world({"vaults_by_tag": "vault"}) as world:
        runtime, listing = world.runtime, await world.list()
        assert (runtime.accounts, runtime.sources.accesses, runtime.targets) == ((), {}, {})
        west = [account for account in listing.accounts if account.name.startswith("west")]
        await runtime.cover(Inventory(tuple(west)))
        assert set(runtime.targets) == {"main"}
        before = dict(runtime.sources.accesses)
        assert len(before) == 1
        await runtime.cover(Inventory(listing.accounts))
        assert set(runtime.targets) == {"main", "second"}
        assert len(runtime.sources.accesses) == 2
        assert all(runtime.sources.accesses[reach] is access for reach, access in before.items())
        (beta,) = (account for account in listing.accounts if account.name == "beta")
        keys = await runtime.sources.source_of(beta).get_keys()
        assert set(keys.values) == {"primary", "secondary"}
        await runtime.cover(Inventory((beta,)))
        assert set(runtime.sources.accesses) == {(beta.subscription_id, beta.credential)}


async def test_a_run_keeps_the_accounts_that_it_started_with(open_world: Opener) -> None:
    """A run still serves an account that a later listing lacks."""
    async with open_world({}) as world:
        runtime, listing = world.runtime, await world.list()
        await runtime.cover(Inventory(listing.accounts))
        job = runtime.make_run(runtime.accounts)
        await runtime.cover(Inventory(tuple(each for each in listing.accounts if each.subscription_id == A)))
        assert len(runtime.sources.accesses) == 1
        report = await run_sync(job)
        assert {result.ref.account for result in report.results} == {one.resource_id for one in listing.accounts}
        assert {result.outcome for result in report.results} == {"created"}


async def shown(world: World) -> dict[str, str]:
    """Secret to outcome (or the kind of the failure) of a run over all covered accounts."""
    listing = await world.list()
    runtime = world.runtime
    await runtime.cover(listing)
    report = await run_sync(runtime.make_run(runtime.accounts))
    return {one.ref.secret: one.error.kind if one.error else one.outcome for one in report.results}


@pytest.mark.parametrize("via", ROUTES)
@pytest.mark.parametrize(("name", "place"), [("nokeys", {"subscription_id": A, "resource_group": "rg-NORTH"}), ("users", {"subscription_id": B, "resource_group": "rg"})])  # fmt: skip
async def test_an_account_under_accounts_that_a_listing_shows_without_keys_is_not_written(
    open_world: Opener, via: str, name: str, place: dict[str, Any]
) -> None:
    """Nothing is written, although listKeys replies 200 and no filter excludes it. A GET of the account itself ends
    this.
    """
    keys = {
        "primary": "cHJpbWFyeS1rZXktb2YtdGhlLWFjY291bnQtbm9rZXlz",
        "secondary": "c2Vjb25kYXJ5LWtleS1vZi10aGUtYWNjb3VudC1ub2s=",
    }
    account = {"name": name, "vaults": ["main"], **place}
    async with open_world({"via": via, "name": "beta", "every": "1h"}, accounts=[account]) as world:
        body = json.dumps({"accountName": name, **keys})
        world.azure.faults.add(Fault(operation="listKeys", target=name, kind="body", body=body))
        found = await shown(world)
        assert found[f"{name}-primary-key"] == found[f"{name}-secondary-key"] == "shared_key_disabled"
        assert found["beta-primary-key"] == "created"
        assert set(world.azure.state.vault("main").secrets) == {"beta-primary-key", "beta-secondary-key"}
        assert world.azure.counts["getAccount"] == 1  # of that account only
        there = world.azure.state.account(name)
        there.authentication_modes, there.pool_allocation_mode = ["SharedKey"], "BatchService"
        assert (await shown(world))[f"{name}-primary-key"] == "created"


@pytest.mark.parametrize("via", ROUTES)
async def test_an_account_of_another_scope_fails_the_listing(open_world: Opener, via: str) -> None:
    """A misrouted list: its accounts belong to no requested scope, and missing accounts do not count as deleted."""
    async with open_world({"via": via, "subscriptions": [A]}) as world:
        row = {"id": f"/subscriptions/{B}/resourceGroups/rg/providers/Microsoft.Batch/batchAccounts/beta", "tags": {}}
        page = (
            {"value": [row]}
            if via == "list"
            else {"data": [row], "count": 1, "totalRecords": 1, "resultTruncated": "false"}
        )
        operation = "listAccounts" if via == "list" else "queryResources"
        world.azure.faults.add(Fault(operation=operation, kind="body", body=json.dumps(page)))
        listing = await world.list()
        assert (listing.accounts, listing.complete) == ((), False)
        assert {problem.record.kind for problem in listing.problems} == {"invalid_response"}


@pytest.mark.parametrize("via", ROUTES)
@pytest.mark.parametrize("body", ["null", "[]", "7", "[" * 30_000, '{"value": ' + "9" * 5_000 + "}", '{"data": 1e999}'])
async def test_a_malformed_list_is_an_invalid_response(open_world: Opener, via: str, body: str) -> None:
    """Whatever a parser makes of it: it is neither a bug of keysync nor an empty list."""
    async with open_world({"via": via, "subscriptions": [A]}) as world:
        operation = "listAccounts" if via == "list" else "queryResources"
        world.azure.faults.add(Fault(operation=operation, kind="body", body=body))
        listing = await world.list()
        assert not listing.complete
        assert {problem.record.kind for problem in listing.problems} == {"invalid_response"}
