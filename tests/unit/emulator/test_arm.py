"""Resource Manager, by the real SDK and by hand."""

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError

from keysync.emulator import Emulator, Fault

from .conftest import SUB, connect, sample

BASE = f"/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.Batch/batchAccounts"
V = "?api-version=2024-07-01"


async def test_the_sdk_gets_lists_and_regenerates(client, azure):
    """Account, keys and a regenerated key come through the SDK's models."""
    account = await client.batch.batch_account.get("rg", "acct1")
    assert account.allowed_authentication_modes[0] == "SharedKey"
    keys = await client.batch.batch_account.get_keys("RG", "ACCT1")
    assert (keys.primary, keys.secondary) == azure.state.keys("acct1") == ("p1", "s1")
    keys = await client.batch.batch_account.regenerate_key("rg", "acct1", {"keyName": "Primary"})
    assert keys.primary not in {"p1", "s1"}
    assert keys.secondary == "s1"
    assert azure.counts["listKeys"] == azure.counts["regenerateKeys"] == azure.counts["getAccount"] == 1
    assert ("listKeys", "ACCT1", 200) in azure.requests


async def test_lists_are_paged(client, azure):
    """All accounts come, two a page, by subscription and by group."""
    names = [account.name async for account in client.batch.batch_account.list()]
    assert len(names) == len(set(names)) == 11
    assert azure.counts["listAccounts"] == 6
    assert [account.name async for account in client.batch.batch_account.list_by_resource_group("rg")] == names


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("nokeys", 403, "SharedKeyAccessNotAllowed"),
        ("usersub", 403, "SharedKeyAccessNotAllowed"),
        ("denied", 403, "AuthorizationFailed"),
        ("busy", 429, "TooManyRequests"),
        ("broken", 503, "ServerBusy"),
    ],
)
async def test_keys_are_refused(client, name, status, code):
    """Each trait or fault of an account has its own status and code."""
    with pytest.raises(HttpResponseError) as caught:
        await client.batch.batch_account.get_keys("rg", name)
    assert (caught.value.status_code, caught.value.error.code) == (status, code)
    assert (await client.batch.batch_account.get("rg", name)).name == name


async def test_a_lock_is_a_conflict(client):
    """A read-only lock answers 409 ScopeLocked."""
    with pytest.raises(ResourceExistsError) as caught:
        await client.batch.batch_account.get_keys("rg", "locked")
    assert caught.value.error.code == "ScopeLocked"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"{BASE}/nobody{V}", 404, "ResourceNotFound"),
        (
            f"/subscriptions/{SUB}/resourceGroups/none/providers/Microsoft.Batch/batchAccounts{V}",
            404,
            "ResourceGroupNotFound",
        ),
        (f"/subscriptions/{SUB.replace('1', '2')}{V}", 404, "SubscriptionNotFound"),
        (f"/subscriptions/nonsense{V}", 400, "InvalidSubscriptionId"),
        (f"{BASE}/acct1", 400, "MissingApiVersionParameter"),
        (f"{BASE}/acct1?api-version=2001-01-01", 400, "NoRegisteredProviderFound"),
        (f"/subscriptions/{SUB.replace('1', '9')}{V}", 401, "InvalidAuthenticationTokenTenant"),
        (f"{BASE}{V}&$skiptoken=!!!!", 400, "InvalidSkipToken"),
        (f"/elsewhere{V}", 404, "InvalidResourceType"),
    ],
)
async def test_what_is_wrong_is_told(client, path, status, code):
    """Errors have ARM's codes, and every reply its identifiers."""
    got, body, headers = await client.arm(path, headers={"x-ms-client-request-id": "mine"})
    assert (got, body["error"]["code"]) == (status, code)
    assert headers["x-ms-client-request-id"] == "mine"
    assert headers["x-ms-request-id"]
    assert headers["x-ms-correlation-request-id"]


@pytest.mark.parametrize("version", ["2023-11-01", "2024-02-01", "2024-07-01", "2025-06-01"])
async def test_paths_have_no_case(client, version):
    """Every api-version of real clients is served, however the path is written."""
    status, body, _ = await client.arm(f"{BASE.upper()}/acct1/LISTKEYS?api-version={version}", "POST")
    assert (status, body["accountName"]) == (200, "acct1")


async def test_a_bad_token_is_refused(client, clock):
    """No token, nonsense, another audience and an expired one are 401."""
    vault_token = await client.token(client.azure.endpoints.vaults["kv-a"])
    for sent, code in [
        ("", "AuthenticationFailed"),
        ("Bearer a.b.c", "InvalidAuthenticationToken"),
        (f"Bearer {vault_token}", "InvalidAuthenticationTokenAudience"),
    ]:
        status, body, headers = await client.arm(f"{BASE}/acct1{V}", headers={"Authorization": sent})
        assert (status, body["error"]["code"]) == (401, code)
        assert headers["WWW-Authenticate"].startswith("Bearer authorization_uri=")
    await client.token(client.azure.endpoints.resource_manager)
    clock.now += 3600
    status, body, _ = await client.arm(f"{BASE}/acct1{V}")
    assert body["error"]["code"] == "ExpiredAuthenticationToken"


async def test_a_bad_key_name_is_refused(client):
    """Only Primary and Secondary can be regenerated."""
    status, body, _ = await client.arm(f"{BASE}/acct1/regenerateKeys{V}", "POST", json={"keyName": "Third"})
    assert (status, body["error"]["target"]) == (400, "keyName")


async def test_subscriptions_tenants_and_metadata(client):
    """What a client asks before it comes to accounts."""
    _, body, _ = await client.arm(f"/subscriptions{V}")
    assert len(body["value"]) == 2
    _, body, _ = await client.arm(f"/tenants{V}")
    assert len(body["value"]) == 2
    _, body, _ = await client.arm("/metadata/endpoints?api-version=2022-09-01", headers={"Authorization": ""})
    assert body["resourceManager"] == client.azure.endpoints.resource_manager
    _, body, _ = await client.arm(f"/subscriptions/{SUB}/resourcegroups{V}")
    assert [group["name"] for group in body["value"]] == ["rg"]


async def test_details_are_nested(client, azure):
    """A fault can carry a CloudError two levels deep."""
    inner = {"code": "Inner", "message": "why", "details": [{"code": "Innermost", "message": "really"}]}
    azure.faults.add(Fault(operation="getAccount", status=400, code="Outer", details=[inner], times=1))
    with pytest.raises(HttpResponseError) as caught:
        await client.batch.batch_account.get("rg", "acct1")
    assert caught.value.model.error.details[0].details[0].code == "Innermost"


async def test_writes_are_throttled_as_documented(clock):
    """200 writes pass, the next gets 429 with Retry-After, and the bucket refills at 10 a second."""
    async with Emulator(sample(), clock=clock, limits=True) as azure, connect(azure) as client:
        path = f"{BASE}/acct1/listKeys{V}"
        left = [(await client.arm(path, "POST"))[2]["x-ms-ratelimit-remaining-subscription-writes"] for _ in range(200)]
        assert (left[0], left[-1]) == ("199", "0")
        status, body, headers = await client.arm(path, "POST")
        assert (status, headers["Retry-After"]) == (429, "1")
        assert body["error"]["code"] == "SubscriptionRequestsThrottled"
        _, _, headers = await client.arm(f"{BASE}/acct1{V}")
        assert headers["x-ms-ratelimit-remaining-subscription-reads"] == "249"
        clock.now += 0.2
        assert (await client.arm(path, "POST"))[0] == 200
