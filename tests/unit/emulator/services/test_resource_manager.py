"""Resource Manager, with the real SDK and with plain requests."""

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError

from keysync.emulator import Emulator, Fault
from tests.unit.emulator.conftest import SUB, connect, sample

BASE = f"/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.Batch/batchAccounts"
V = "?api-version=2024-07-01"


async def test_the_sdk_reads_and_regenerates_keys(client, azure):
    """The SDK's models show the account, its keys and the new key."""
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
    """By subscription and by group, with two accounts per page."""
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
        ("busy", 429, "ResourceCollectionRequestsThrottled"),
        ("broken", 503, "ServerBusy"),
    ],
)
async def test_keys_are_refused(client, name, status, code):
    """Each property or fault of an account has its own status and code."""
    with pytest.raises(HttpResponseError) as caught:
        await client.batch.batch_account.get_keys("rg", name)
    assert (caught.value.status_code, caught.value.error.code) == (status, code)
    assert (await client.batch.batch_account.get("rg", name)).name == name


async def test_a_lock_refuses_list_keys(client):
    """A read-only lock gives 409 ScopeLocked."""
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
        (f"/elsewhere{V}", 404, "MissingSubscription"),
    ],
)
async def test_errors_have_the_codes_of_resource_manager(client, path, status, code):
    """Each reply has the headers with its ids."""
    actual, body, headers = await client.arm(path, headers={"x-ms-client-request-id": "mine"})
    assert (actual, body["error"]["code"]) == (status, code)
    assert headers["x-ms-client-request-id"] == "mine"
    assert headers["x-ms-request-id"]
    assert headers["x-ms-correlation-request-id"]


@pytest.mark.parametrize("version", ["2023-11-01", "2024-02-01", "2024-07-01", "2025-06-01"])
async def test_paths_ignore_case(client, version):
    """In every api-version of real clients."""
    status, body, _ = await client.arm(f"{BASE.upper()}/acct1/LISTKEYS?api-version={version}", "POST")
    assert (status, body["accountName"]) == (200, "acct1")


async def test_a_bad_token_is_refused(client, clock):
    """401 for no token, a malformed one, another audience and an expired one."""
    vault_token = await client.token(client.azure.endpoints.vaults["kv-a"])
    for authorization, code in [
        ("", "AuthenticationFailed"),
        ("Bearer a.b.c", "InvalidAuthenticationToken"),
        (f"Bearer {vault_token}", "InvalidAuthenticationTokenAudience"),
    ]:
        status, body, headers = await client.arm(f"{BASE}/acct1{V}", headers={"Authorization": authorization})
        assert (status, body["error"]["code"]) == (401, code)
        assert headers["WWW-Authenticate"].startswith("Bearer authorization_uri=")
    await client.token(client.azure.endpoints.resource_manager)
    clock.now += 3600
    status, body, _ = await client.arm(f"{BASE}/acct1{V}")
    assert body["error"]["code"] == "ExpiredAuthenticationToken"


async def test_a_bad_key_name_is_refused(client):
    """Only Primary and Secondary can be regenerated."""
    status, body, _ = await client.arm(f"{BASE}/acct1/regenerateKeys{V}", "POST", json={"keyName": "Third"})
    assert (status, body["error"]["code"], body["error"]["details"][0]["code"]) == (400, "InvalidRequestBody", "Reason")


async def test_subscriptions_tenants_and_metadata(client):
    """The operations that clients call before they list accounts."""
    _, body, _ = await client.arm(f"/subscriptions{V}")
    assert len(body["value"]) == 2
    _, body, _ = await client.arm(f"/tenants{V}")
    assert len(body["value"]) == 2
    _, body, _ = await client.arm("/metadata/endpoints?api-version=2022-09-01", headers={"Authorization": ""})
    assert body["resourceManager"] == client.azure.endpoints.resource_manager
    _, body, _ = await client.arm(f"/subscriptions/{SUB}/resourcegroups{V}")
    assert [group["name"] for group in body["value"]] == ["rg"]


async def test_error_details_can_be_nested(client, azure):
    """A fault can have two levels of details."""
    inner = {"code": "Inner", "message": "why", "details": [{"code": "Innermost", "message": "really"}]}
    azure.faults.add(Fault(operation="getAccount", status=400, code="Outer", details=[inner], times=1))
    with pytest.raises(HttpResponseError) as caught:
        await client.batch.batch_account.get("rg", "acct1")
    assert caught.value.model.error.details[0].details[0].code == "Innermost"


async def test_writes_are_throttled_as_documented(clock):
    """200 writes succeed, the next is 429 with Retry-After. The bucket refills at 10 per second."""
    async with Emulator(sample(), clock=clock, limits=True) as azure, connect(azure) as client:
        path = f"{BASE}/acct1/listKeys{V}"
        remaining = [
            (await client.arm(path, "POST"))[2]["x-ms-ratelimit-remaining-subscription-writes"] for _ in range(200)
        ]
        assert (remaining[0], remaining[-1]) == ("199", "0")
        status, body, headers = await client.arm(path, "POST")
        assert (status, headers["Retry-After"]) == (429, "1")
        assert body["error"]["code"] == "SubscriptionRequestsThrottled"
        _, _, headers = await client.arm(f"{BASE}/acct1{V}")
        assert headers["x-ms-ratelimit-remaining-subscription-reads"] == "249"
        clock.now += 0.2
        assert (await client.arm(path, "POST"))[0] == 200
