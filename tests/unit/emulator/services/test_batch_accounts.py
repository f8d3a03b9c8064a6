"""Microsoft.Batch: accounts in each api-version, what clients change of them, and the errors of the provider."""

import pytest
from azure.mgmt.batch.models import BatchAccountUpdateParameters, BatchAccountUpdateProperties

from keysync.emulator import AccountData, Emulator, EmulatorData, VaultData
from keysync.emulator.services.batch_bodies import BATCH_VERSIONS
from keysync.emulator.state import REMEMBER_DELETED_SECONDS
from tests.unit.emulator.conftest import SUB, connect

BASE = f"/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.Batch/batchAccounts"
V = "?api-version=2025-06-01"
VAULTS = [VaultData(name="kv-a"), VaultData(name="kv-denied")]


async def patch(client, body, name="acct1", version=V):
    return await client.arm(f"{BASE}/{name}{version}", "PATCH", json=body)


def reason(body):
    (detail,) = body["error"]["details"]
    assert detail["code"] == "Reason"
    return detail["message"]


@pytest.mark.parametrize("version", BATCH_VERSIONS)
async def test_an_account_has_the_properties_of_the_version(client, version):
    """A property that a version does not know is absent, also in lists."""
    _, account, _ = await client.arm(f"{BASE}/acct1?api-version={version}")
    _, page, _ = await client.arm(f"{BASE}?api-version={version}")
    assert page["value"][1] == account
    properties = account["properties"]
    assert ("allowedAuthenticationModes" in properties) == (version >= "2021-06-01")
    assert ("privateEndpointConnections" in properties) == (version >= "2022-01-01")
    assert ("nodeManagementEndpoint" in properties) == (version >= "2022-06-01")
    assert ("publicNetworkAccess" in properties) == ("identity" in account) == (version >= "2020-05-01")
    assert not {"networkProfile", "autoStorage", "keyVaultReference"} & set(properties)


async def test_properties_are_added_by_later_versions(client):
    """A network profile is not shown by 2022-01-01; SecuredByPerimeter is shown as Disabled before 2024-07-01."""
    profile = {"accountAccess": {"defaultAction": "Deny", "ipRules": [{"action": "Allow", "value": "192.0.2.1"}]}}
    sent = {"publicNetworkAccess": "securedByPerimeter", "networkProfile": profile}
    assert (await patch(client, {"properties": sent}))[0] == 200
    for version, access, shown in [
        ("2025-06-01", "SecuredByPerimeter", profile),
        ("2024-02-01", "Disabled", profile),
        ("2022-01-01", "Disabled", None),
    ]:
        _, account, _ = await client.arm(f"{BASE}/acct1?api-version={version}")
        properties = account["properties"]
        assert (properties["publicNetworkAccess"], properties.get("networkProfile")) == (access, shown)


async def test_the_sdk_turns_shared_keys_off_and_on(client, azure):
    """What docs/comparison.md recommends: the keys are refused then, and come back."""
    update = BatchAccountUpdateParameters(
        properties=BatchAccountUpdateProperties(allowed_authentication_modes=["AAD"]), tags={"team": "fx"}
    )
    account = await client.batch.batch_account.update("rg", "acct1", update)
    assert (account.allowed_authentication_modes, account.tags) == (["AAD"], {"team": "fx"})
    for path, sent in [("listKeys", {}), ("regenerateKeys", {"json": {"keyName": "Primary"}})]:
        status, body, _ = await client.arm(f"{BASE}/acct1/{path}{V}", "POST", **sent)
        assert (status, body["error"]["code"]) == (403, "SharedKeyAccessNotAllowed")
        assert "invented" in body["error"]["message"]
    assert (await patch(client, {"properties": {"allowedAuthenticationModes": None}}))[0] == 200
    assert (await client.batch.batch_account.get_keys("rg", "acct1")).primary == "p1"
    assert azure.counts["updateAccount"] == 2
    assert (await patch(client, {"properties": {"allowedAuthenticationModes": []}}))[1]["properties"][
        "allowedAuthenticationModes"
    ] == []


async def test_a_change_replaces_the_validators(client, clock):
    """ETag and Last-Modified show the time of the change."""
    _, _, before = await client.arm(f"{BASE}/acct1{V}")
    assert before["ETag"] == '"0x8DF72DD8DAA8000"'
    clock.now += 60
    _, _, changed = await patch(client, {"tags": {"a": "b"}})
    _, _, after = await client.arm(f"{BASE}/acct1{V}")
    assert changed["ETag"] == after["ETag"] != before["ETag"]
    assert after["Last-Modified"] != before["Last-Modified"]


async def test_identities_and_auto_storage_are_completed(client):
    """Batch adds the principal of an identity, and the time of the last synchronization."""
    storage = {"storageAccountId": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/x"}
    _, body, _ = await patch(client, {"identity": {"type": "systemassigned"}, "properties": {"autoStorage": storage}})
    assert (body["identity"]["type"], len(body["identity"]["principalId"])) == ("SystemAssigned", 36)
    assert body["properties"]["autoStorage"].keys() == {"storageAccountId", "lastKeySync", "authenticationMode"}
    given = {"/subscriptions/s/.../identity": {}}
    _, body, _ = await patch(client, {"identity": {"type": "UserAssigned", "userAssignedIdentities": given}})
    assert body["identity"]["userAssignedIdentities"].keys() == given.keys()
    _, body, _ = await patch(client, {"identity": {"type": "None"}, "properties": {"autoStorage": None}})
    assert body["identity"] == {"type": "None"}
    assert "autoStorage" not in body["properties"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"properties": {"allowedAuthenticationModes": ["SharedKeys"]}}, "'AuthenticationMode'"),
        ({"properties": {"allowedAuthenticationModes": "AAD"}}, "not a JSON array"),
        ({"properties": {"publicNetworkAccess": "Off"}}, "'PublicNetworkAccessType'"),
        ({"properties": {"poolAllocationMode": "UserSubscription"}}, "Could not find member 'poolAllocationMode'"),
        ({"properties": {"networkProfile": {"accountAccess": {}}}}, "'EndpointAccessDefaultAction'"),
        ({"properties": {"encryption": {"keySource": "none"}}}, "'KeySource'"),
        ({"properties": {"autoStorage": {}}}, "'storageAccountId'"),
        ({"properties": []}, "not a JSON object"),
        ({"identity": {"type": "Both"}}, "'ResourceIdentityType'"),
        ({"tags": {"a": 1}}, "Dictionary"),
        ({"sku": "big"}, "Could not find member 'sku'"),
        ([], "not a JSON object"),
    ],
)
async def test_an_invalid_change_is_refused_and_changes_nothing(client, body, text):
    """With the error of Batch: target, ids, and the reason."""
    _, before, _ = await client.arm(f"{BASE}/acct1{V}")
    status, refusal, headers = await patch(client, body)
    error = refusal["error"]
    assert (status, error["code"], error["target"]) == (400, "InvalidRequestBody", "BatchAccount")
    assert f"\nRequestId:{headers['x-ms-request-id']}\nTime:2027-01-15T08:00:00.0000000Z" in error["message"]
    assert text in reason(refusal)
    assert "x-ms-failure-cause" not in headers
    assert (await client.arm(f"{BASE}/acct1{V}"))[1] == before


async def test_an_old_version_refuses_what_it_does_not_know(client):
    """The network profile came with 2022-06-01, the modes with 2021-06-01."""
    for name, version in [("networkProfile", "2022-01-01"), ("allowedAuthenticationModes", "2020-05-01")]:
        status, body, _ = await patch(client, {"properties": {name: None}}, version=f"?api-version={version}")
        assert (status, reason(body)) == (
            400,
            f"Could not find member '{name}' on object of type 'BatchAccountUpdateProperties'.",
        )


async def test_bodies_that_are_no_json_are_refused(client):
    """Resource Manager reads the bodies of PATCH and PUT, Batch the one of an action."""
    content = {"Content-Type": "application/json"}
    status, body, headers = await client.arm(f"{BASE}/acct1{V}", "PATCH", data="{", headers=content)
    assert (status, body["error"]["code"], headers["x-ms-failure-cause"]) == (400, "InvalidRequestContent", "gateway")
    status, body, headers = await client.arm(f"{BASE}/acct1/regenerateKeys{V}", "POST", data="{", headers=content)
    assert (status, body["error"]["code"]) == (400, "InvalidRequestBody")
    status, body, _ = await client.arm(f"{BASE}/acct1{V}", "PATCH", data="{}", headers={"Content-Type": "text/plain"})
    assert (status, body["error"]["message"]) == (
        415,
        "The content media type 'text/plain' is not supported. Only 'application/json' is supported.",
    )


@pytest.mark.parametrize("name", ["primary", "PRIMARY", "Primary"])
async def test_the_name_of_a_key_ignores_case(client, name):
    """As enumerations of .NET do."""
    status, body, _ = await client.arm(f"{BASE}/acct1/regenerateKeys{V}", "POST", json={"keyName": name})
    assert (status, body["secondary"]) == (200, "s1")
    assert body["primary"] != "p1"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"keyName": "Third"}, "Error converting value \"Third\" to type 'AccountKeyType'."),
        ({"keyName": 1}, "Error converting value 1 to type 'AccountKeyType'."),
        ({}, "Required property 'keyName' not found in JSON."),
        ({"name": "Primary"}, "Could not find member 'name' on object of type 'BatchAccountRegenerateKeyParameters'."),
        ([], "it is not a JSON object."),
        (None, "it is not a JSON object."),
    ],
)
async def test_a_wrong_body_regenerates_no_key(client, azure, body, text):
    """Each with its reason; both keys stay."""
    sent = {} if body is None else {"json": body}
    status, refusal, _ = await client.arm(f"{BASE}/acct1/regenerateKeys{V}", "POST", **sent)
    assert (status, refusal["error"]["code"]) == (400, "InvalidRequestBody")
    assert text in reason(refusal)
    assert azure.state.keys("acct1") == ("p1", "s1")


async def test_accounts_in_user_subscription_mode_have_no_quotas(client):
    """They are null, and the account names its vault."""
    _, body, _ = await client.arm(f"{BASE}/usersub{V}")
    properties = body["properties"]
    assert properties["keyVaultReference"].keys() == {"id", "url"}
    nulls = {name for name, value in properties.items() if value is None}
    assert nulls == {"dedicatedCoreQuota", "dedicatedCoreQuotaPerVMFamily", "lowPriorityCoreQuota"}


async def test_an_account_is_created_and_deleted(client, azure, clock):
    """A deleted account is Batch's to miss while Resource Manager still knows it, then Resource Manager's."""
    created = {
        "location": "Japan East",
        "tags": {"a": "b"},
        "properties": {"allowedAuthenticationModes": ["SharedKey"]},
    }
    status, body, _ = await client.arm(f"{BASE}/fresh{V}", "PUT", json=created)
    assert (status, body["location"], body["tags"]) == (200, "japaneast", {"a": "b"})
    assert body["properties"]["allowedAuthenticationModes"] == ["SharedKey"]
    assert (await client.batch.batch_account.get_keys("rg", "fresh")).primary == azure.state.keys("fresh")[0]
    status, body, headers = await client.arm(f"{BASE}/fresh{V}", "PUT", json={"location": "westus2"})
    assert (status, body["error"]["code"]) == (409, "InvalidResourceLocation")
    assert (await client.arm(f"{BASE}/fresh{V}", "PUT", json={"location": "japaneast", "tags": {}}))[0] == 200
    assert (await client.arm(f"{BASE}/fresh{V}", "DELETE"))[0] == 200
    assert "fresh" not in [each["name"] for each in (await client.arm(f"{BASE}{V}&$top=50"))[1]["value"]]
    status, body, headers = await client.arm(f"{BASE}/fresh{V}")
    assert (status, body["error"]["code"], body["error"]["target"]) == (404, "AccountNotFound", "BatchAccount")
    assert "x-ms-failure-cause" not in headers
    clock.now += REMEMBER_DELETED_SECONDS
    status, body, headers = await client.arm(f"{BASE}/fresh{V}")
    assert (status, body["error"]["code"], headers["x-ms-failure-cause"]) == (404, "ResourceNotFound", "gateway")


@pytest.mark.parametrize(
    ("name", "body", "status", "code"),
    [
        ("fresh", {}, 400, "LocationRequired"),
        ("fresh", {"location": "moon"}, 400, "LocationNotAvailableForResourceType"),
        ("Fresh-1", {"location": "westeurope"}, 400, "InvalidAccountName"),
        ("fresh", {"location": "westeurope", "properties": {"poolAllocationMode": "UserSubscription"}}, 400, "InvalidRequestBody"),
    ],
)  # fmt: skip
async def test_an_account_that_cannot_be_created_does_not_exist(client, azure, name, body, status, code):
    """Each refusal has its code."""
    actual, refusal, _ = await client.arm(f"{BASE}/{name}{V}", "PUT", json=body)
    assert (actual, refusal["error"]["code"]) == (status, code)
    assert "fresh" not in {account.name for account in azure.state.accounts.values()}


async def test_applications_and_quotas_are_answered(client):
    """An account has no applications; a region has a quota of accounts."""
    assert (await client.arm(f"{BASE}/acct1/applications{V}"))[1] == {"value": []}
    status, body, _ = await client.arm(f"{BASE}/acct1/applications/none/versions{V}")
    assert (status, body["error"]["code"]) == (404, "ApplicationNotFound")
    path = f"/subscriptions/{SUB}/providers/Microsoft.Batch/locations/westeurope/quotas{V}"
    assert (await client.arm(path))[1] == {"accountQuota": 3}


async def test_changes_survive_a_restart(tmp_path):
    """Changed and created accounts are kept, deleted ones stay away."""
    group = {"subscription_id": SUB, "resource_group": "rg"}
    content = EmulatorData(accounts=[AccountData(**group, name=name) for name in ("acct1", "acct2")], vaults=VAULTS)
    async with Emulator(content, state_directory=tmp_path) as azure, connect(azure) as client:
        await patch(client, {"properties": {"allowedAuthenticationModes": ["AAD"]}})
        await client.arm(f"{BASE}/fresh{V}", "PUT", json={"location": "westeurope", "tags": {"a": "b"}})
        await client.arm(f"{BASE}/acct2{V}", "DELETE")
        keys = azure.state.keys("fresh")
    async with Emulator(content, state_directory=tmp_path) as azure:
        accounts = {account.name: account for account in azure.state.accounts.values()}
        assert set(accounts) == {"acct1", "fresh"}
        assert accounts["acct1"].authentication_modes == ["AAD"]
        assert (accounts["fresh"].tags, azure.state.keys("fresh")) == ({"a": "b"}, keys)
