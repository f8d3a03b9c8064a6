"""What Resource Manager itself refuses: versions, providers, states of subscriptions, locks, roles and limits."""

import ssl

import aiohttp
import pytest

from keysync.emulator import AccountData, Emulator, EmulatorData, VaultData
from keysync.emulator.throttle import ARM_LIMITS
from tests.unit.emulator.conftest import SUB, connect, sample

OTHER, THIRD, FOURTH = (SUB.replace("1", digit) for digit in "234")
BASE = f"/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.Batch/batchAccounts"
V = "?api-version=2025-06-01"
VAULTS = [VaultData(name="kv-a"), VaultData(name="kv-denied")]
VERSIONS = (
    "2018-12-01, 2020-05-01, 2021-06-01, 2022-01-01, 2022-06-01, 2022-10-01, 2023-05-01, 2023-11-01, 2024-02-01, 2024-07-01, "
    "2025-06-01"
)


def content(**more):
    group = {"subscription_id": SUB, "resource_group": "rg"}
    accounts = [AccountData(**group, name="acct1"), AccountData(**group, name="acct2", lock="CanNotDelete")]
    return EmulatorData.model_validate({"accounts": accounts, "vaults": VAULTS, **more})


def account(subscription):
    return f"/subscriptions/{subscription}/resourceGroups/rg/providers/Microsoft.Batch/batchAccounts/acct1"


async def refusal(client, path, method="GET", **more):
    """Status, code and message of a refusal by the gateway."""
    status, body, headers = await client.arm(path, method, **more)
    assert headers["x-ms-failure-cause"] == "gateway"
    assert not [name for name in headers if "ratelimit" in name.lower()]
    return status, body["error"]["code"], body["error"]["message"]


async def test_an_unknown_version_of_an_account_names_region_versions_and_regions(client):
    """For an account that exists, the error is about its region; for a listing, about the type."""
    status, code, message = await refusal(client, f"{BASE}/acct1/listKeys?api-version=2026-01-01", "POST")
    assert (status, code) == (400, "NoRegisteredProviderFound")
    start = (
        "No registered resource provider found for location 'westeurope' and API version '2026-01-01' for type "
        f"'batchAccounts'. The supported api-versions are '{VERSIONS}'. The supported locations are 'westeurope, northeurope, "
    )
    assert message.startswith(start)
    assert await refusal(client, f"{BASE}?api-version=2026-01-01") == (
        404,
        "InvalidResourceType",
        (
            "The resource type 'batchAccounts' could not be found in the namespace 'Microsoft.Batch' for api version "
            f"'2026-01-01'. The supported api-versions are '{VERSIONS.replace(' ', '')}'."
        ),
    )


@pytest.mark.parametrize(
    ("path", "status", "code", "message"),
    [
        (f"{BASE}/acct1/pools/p{V}", 404, "InvalidResourceType", "The resource type 'batchAccounts/pools' could not be found in the namespace 'Microsoft.Batch' for api version '2025-06-01'."),
        (f"/subscriptions/{SUB}/providers/Microsoft.Bach/batchAccounts{V}", 404, "InvalidResourceNamespace", "The resource namespace 'Microsoft.Bach' is invalid."),
        (f"/subscriptions/{SUB}/resourcegroups?api-version=2001-01-01", 400, "InvalidApiVersionParameter", "The api-version '2001-01-01' is invalid. The supported versions are '2014-04-01,"),
        ("/elsewhere?api-version=2022-09-01", 404, "MissingSubscription", "The request did not have a subscription or a valid tenant level resource provider."),
        (f"/subscriptions/{SUB}/resourcegroups/none?api-version=2022-09-01", 404, "ResourceGroupNotFound", "Resource group 'none' could not be found."),
        (f"/subscriptions/{SUB}/providers/Microsoft.Bach?api-version=2022-09-01", 404, "InvalidResourceNamespace", "The resource namespace 'microsoft.bach' is invalid."),
    ],
)  # fmt: skip
async def test_unknown_things_have_their_own_errors(client, path, status, code, message):
    """Types, namespaces, versions, paths, groups and providers."""
    actual = await refusal(client, path)
    assert actual[:2] == (status, code)
    assert actual[2].startswith(message)


async def test_a_method_that_a_resource_does_not_have_is_405(client):
    """With the body of the web framework, and not of the gateway."""
    status, body, _ = await client.arm(f"{BASE}/acct1/listKeys{V}", "GET")
    assert (status, body) == (405, {"Message": "The requested resource does not support http method 'GET'."})


async def test_a_disabled_subscription_is_read_only():
    """Reads are answered, and show the state; the keys are a write."""
    async with Emulator(content(subscriptions=[{"id": SUB, "state": "Disabled"}])) as azure, connect(azure) as client:
        assert await refusal(client, f"{BASE}/acct1/listKeys{V}", "POST") == (
            409,
            "ReadOnlyDisabledSubscription",
            (
                f"The subscription '{SUB}' is disabled and therefore marked as read only. You cannot perform any write "
                "actions on this subscription until it is re-enabled."
            ),
        )
        assert (await client.arm(f"{BASE}/acct1{V}"))[0] == 200
        assert (await client.arm(f"/subscriptions/{SUB}?api-version=2022-12-01"))[1]["state"] == "Disabled"


async def test_a_provider_can_be_registered():
    """As `az provider register` does; until then each call is refused."""
    data = content(subscriptions=[{"id": SUB, "unregistered": ["Microsoft.Batch"]}])
    async with Emulator(data) as azure, connect(azure) as client:
        status, code, _ = await refusal(client, f"{BASE}/acct1/listKeys{V}", "POST")
        assert (status, code) == (409, "MissingSubscriptionRegistration")
        path = f"/subscriptions/{SUB}/providers/Microsoft.Batch"
        version = "?api-version=2024-11-01"
        assert (await client.arm(f"{path}{version}"))[1]["registrationState"] == "NotRegistered"
        _, body, _ = await client.arm(f"{path}/register{version}", "POST")
        assert (body["namespace"], body["registrationState"]) == ("Microsoft.Batch", "Registered")
        assert "2025-06-01" in body["resourceTypes"][0]["apiVersions"]
        assert (await client.arm(f"{BASE}/acct1/listKeys{V}", "POST"))[0] == 200
        _, listed, _ = await client.arm(f"/subscriptions/{SUB}/providers{version}")
        assert {"Microsoft.Batch", "Microsoft.KeyVault"} <= {each["namespace"] for each in listed["value"]}


async def test_an_offer_can_permit_no_provider():
    """Resource Manager's own operations are answered."""
    async with (
        Emulator(content(subscriptions=[{"id": SUB, "providers_blocked": True}])) as azure,
        connect(azure) as client,
    ):
        assert (await refusal(client, f"{BASE}{V}"))[:2] == (400, "DisallowedOperation")
        assert (await client.arm(f"/subscriptions/{SUB}/resourcegroups?api-version=2022-09-01"))[0] == 200


@pytest.mark.parametrize(
    ("scope", "shown"),
    [
        (f"/subscriptions/{SUB}", f"/subscriptions/{SUB}"),
        (f"/subscriptions/{SUB}/resourceGroups/rg", f"/subscriptions/{SUB}/resourcegroups/rg"),
        (f"{BASE}/acct1", f"{BASE}/acct1"),
    ],
)
async def test_a_lock_applies_below_its_scope(scope, shown):
    """A read-only lock refuses the keys and changes, and allows reads."""
    async with Emulator(content(locks=[{"scope": scope, "level": "ReadOnly"}])) as azure, connect(azure) as client:
        for method, path in [("POST", "/listKeys"), ("PATCH", ""), ("DELETE", "")]:
            status, code, message = await refusal(client, f"{BASE}/acct1{path}{V}", method)
            kind = "delete" if method == "DELETE" else "write"
            assert (status, code) == (409, "ScopeLocked")
            assert message == (
                f"The scope '{BASE}/acct1' cannot perform {kind} operation because following scope(s) are locked: '{shown}'. "
                "Please remove the lock and try again."
            )
        assert (await client.arm(f"{BASE}/acct1{V}"))[0] == 200


async def test_a_lock_against_deletion_allows_changes():
    """CanNotDelete refuses only DELETE."""
    async with Emulator(content()) as azure, connect(azure) as client:
        assert (await client.arm(f"{BASE}/acct2{V}", "PATCH", json={}))[0] == 200
        assert (await refusal(client, f"{BASE}/acct2{V}", "DELETE"))[:2] == (409, "ScopeLocked")
        assert azure.state.account("acct2").name == "acct2"


async def test_a_deny_assignment_refuses_what_roles_allow():
    """It names itself, and its scope."""
    denial = {"scope": f"/subscriptions/{SUB}", "name": "stack", "id": "0000", "actions": ["*/listKeys/action"]}
    async with Emulator(content(deny_assignments=[denial])) as azure, connect(azure) as client:
        status, code, message = await refusal(client, f"{BASE}/acct1/listKeys{V}", "POST")
        assert (status, code) == (403, "DenyAssignmentAuthorizationFailed")
        assert message.endswith(
            "the access is denied because of the deny assignment with name 'stack' and Id '0000' at scope "
            f"'/subscriptions/{SUB}'."
        )
        assert (await client.arm(f"{BASE}/acct1{V}"))[0] == 200


async def test_each_kind_of_request_has_its_limits(clock):
    """Of one caller, and of all callers of a subscription together. Errors of the gateway spend none of them."""
    async with Emulator(sample(), clock=clock, limits=True) as azure, connect(azure) as client:
        prefix = "x-ms-ratelimit-remaining-subscription-"
        for method, path, kind, own, everyone in [
            ("GET", f"{BASE}/acct1{V}", "reads", "249", "3749"),
            ("POST", f"{BASE}/acct1/listKeys{V}", "writes", "199", "2999"),
            ("DELETE", f"{BASE}/acct1{V}", "deletes", "199", "2999"),
        ]:
            _, _, headers = await client.arm(path, method)
            assert (headers[f"{prefix}{kind}"], headers[f"{prefix}global-{kind}"]) == (own, everyone)
        own, everyone = ARM_LIMITS["read"]
        for _ in range(int(own.burst) - 1):
            assert (await client.arm(f"/subscriptions/{SUB}?api-version=2022-12-01"))[0] == 200
        status, code, message = await refusal(client, f"{BASE}/acct2{V}")
        assert (status, code) == (429, "SubscriptionRequestsThrottled")
        object_id = message.split("actor '")[1][:36]
        assert message == (
            f"Number of 'read' requests for subscription '{SUB}' actor '{object_id}' exceeded. Please try again after '1' "
            "seconds after additional tokens are available. Refer to https://aka.ms/arm-throttling for additional information."
        )
        clock.now += 1
        _, _, headers = await client.arm(f"{BASE}/acct2{V}")
        assert headers[f"{prefix}reads"] == "24"
        assert int(headers[f"{prefix}global-reads"]) == everyone.burst - 1
        assert (await client.arm(f"/subscriptions/{SUB.replace('1', '9')}{V}"))[0] == 401


async def test_every_reply_has_the_ids_of_the_gateway(client):
    """The routing id has the region, the time and the correlation id of the client."""
    _, _, headers = await client.arm(f"{BASE}/acct1{V}", headers={"x-ms-correlation-request-id": "mine"})
    assert headers["x-ms-routing-request-id"] == "WESTEUROPE:20270115T080000Z:mine"
    assert headers["x-ms-correlation-request-id"] == "mine"
    assert (headers["Pragma"], headers["Expires"], headers["X-Content-Type-Options"]) == ("no-cache", "-1", "nosniff")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_links_have_the_host_of_the_client(client, azure, host):
    """A token for one name of loopback is good for the other. Vaults and pages are linked by the name that was used."""
    base = azure.endpoints.resource_manager.replace("localhost", host)
    token = await client.token(azure.endpoints.resource_manager)
    context = ssl.create_default_context(cafile=azure.endpoints.ca_bundle)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context), headers={"Authorization": f"Bearer {token}"}
    ) as session:
        async with session.get(f"{base}{BASE}{V}") as reply:
            link = (await reply.json())["nextLink"]
        assert link.startswith(f"{base}{BASE}?api-version=2025-06-01&%24skiptoken=")
        async with session.get(aiohttp.client.URL(link, encoded=True)) as reply:
            assert [each["name"] for each in (await reply.json())["value"]] == ["acct2", "acct3"]
        path = f"/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/kv-a?api-version=2026-02-01"
        async with session.get(f"{base}{path}") as reply:
            uri = (await reply.json())["properties"]["vaultUri"]
        assert uri == azure.endpoints.vaults["kv-a"].replace("localhost", host) + "/"
        async with session.get(f"{uri}secrets?api-version=7.6", headers={"Authorization": ""}) as reply:
            assert reply.status == 401
