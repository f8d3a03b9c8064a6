"""Subscriptions, resource groups, resources and vaults, as az and the management SDKs list them."""

import pytest

from keysync.emulator import AccountData, Emulator, EmulatorData, VaultData
from tests.unit.emulator.conftest import SUB, connect

OTHER = SUB.replace("1", "2")
V = "?api-version=2026-02-01"
VAULTS = f"/subscriptions/{SUB}/providers/Microsoft.KeyVault/vaults"
ALL = f"/subscriptions/{SUB}/resources?api-version=2015-11-01"


@pytest.fixture
async def azure(clock):
    group = {"subscription_id": SUB, "resource_group": "rg"}
    content = EmulatorData(
        page_size=2,
        subscriptions=[OTHER],
        resource_groups=[
            {"subscription_id": SUB, "name": "empty", "tags": {"Team": "fx"}},
            {"subscription_id": OTHER, "name": "else"},
        ],
        accounts=[AccountData(**group, name=f"acct{n}", tags={"Team": "fx"} if n else {}) for n in range(3)],
        vaults=[
            VaultData(name="kv-a", access_policies=[{"identity": "owner", "secrets": ["get", "list"]}]),
            VaultData(name="kv-denied", resource_group="Secrets", retention_days=7, purge_protection=True),
            VaultData(name="kv-other", subscription_id=OTHER, resource_group="else", access_policies=True),
        ],
        identities=[
            {"name": "owner", "client_id": EmulatorData().client_id, "client_secret": "s", "unrestricted": True}
        ],
    )
    async with Emulator(content, clock=clock) as running:
        yield running


@pytest.fixture
async def client(azure):
    async with connect(azure) as connected:
        yield connected


async def pages(client, path):
    """The items of all pages."""
    items, links = [], 0
    while path:
        _, body, _ = await client.arm(path)
        items += body["value"]
        path = body.get("nextLink", "").removeprefix(client.azure.endpoints.resource_manager)
        links += 1
    return items, links


async def names(client, path):
    return [item["name"] for item in (await pages(client, path))[0]]


async def test_resources_of_every_provider_are_listed(client):
    """In pages, by subscription and by group."""
    items, links = await pages(client, ALL)
    assert [item["name"] for item in items] == ["acct0", "acct1", "acct2", "kv-a", "kv-denied"]
    assert links == 3
    assert items[3] == {
        "id": f"/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/kv-a",
        "name": "kv-a",
        "type": "Microsoft.KeyVault/vaults",
        "location": "westeurope",
        "tags": {},
    }
    path = f"/subscriptions/{SUB}/resourceGroups/SECRETS/resources?api-version=2024-11-01"
    assert await names(client, path) == ["kv-denied"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("resourceType eq 'Microsoft.KeyVault/vaults'", ["kv-a", "kv-denied"]),
        ("resourceType eq 'microsoft.keyvault/vaults' and name eq 'KV-A'", ["kv-a"]),
        ("resourceType ne 'Microsoft.Batch/batchAccounts' and resourceGroup eq 'rg'", ["kv-a"]),
        ("substringof('denied', name)", ["kv-denied"]),
        ("tagName eq 'team' and tagValue eq 'fx'", ["acct1", "acct2"]),
        ("location eq 'nowhere'", []),
    ],
)
async def test_resources_are_filtered(client, text, found):
    """The link to the next page keeps the filter."""
    assert await names(client, f"{ALL}&$filter={text}") == found
    assert await names(client, f"{ALL}&$top=1&$filter={text}") == found


@pytest.mark.parametrize("text", ["name like 'x'", "color eq 'red'", "name eq 'a' or name eq 'b'", "name eq 'a' and"])
async def test_other_filters_are_refused(client, text):
    """An error is better than a wrong list."""
    status, body, _ = await client.arm(f"{ALL}&$filter={text}")
    assert (status, body["error"]["code"]) == (400, "InvalidFilterInQueryString")


async def test_vaults_are_listed_and_shown(client, azure):
    """By subscription and by group. Their entries show access policies, retention and protection."""
    assert await names(client, f"{VAULTS}{V}") == ["kv-a", "kv-denied"]
    assert await names(client, f"{VAULTS}{V}&$top=1") == ["kv-a", "kv-denied"]
    group = f"/subscriptions/{OTHER}/resourceGroups/else/providers/Microsoft.KeyVault/vaults"
    assert await names(client, f"{group}{V}") == ["kv-other"]
    _, body, _ = await client.arm(f"{VAULTS}{V}")
    first, second = (vault["properties"] for vault in body["value"])
    assert first["vaultUri"] == azure.endpoints.vaults["kv-a"] + "/"
    assert (first["enableRbacAuthorization"], second["enableRbacAuthorization"]) == (False, True)
    (policy,) = first["accessPolicies"]
    assert (len(policy["objectId"]), policy["permissions"]["secrets"]) == (36, ["get", "list"])
    assert (second["softDeleteRetentionInDays"], second["enablePurgeProtection"]) == (7, True)
    _, one, _ = await client.arm(f"{group}/KV-other{V}")
    assert (one["name"], one["properties"]["enableRbacAuthorization"]) == ("kv-other", False)
    _, old, _ = await client.arm(f"{group}/kv-other?api-version=2019-09-01")
    assert "publicNetworkAccess" not in old["properties"]
    status, refusal, headers = await client.arm(f"{group}/none{V}")
    assert (status, headers["x-ms-failure-cause"]) == (404, "gateway")
    assert refusal["error"]["message"].startswith(
        "The Resource 'Microsoft.KeyVault/vaults/none' under resource group 'else'"
    )
    for kind in ("managedHSMs", "deletedVaults"):
        assert await names(client, f"/subscriptions/{SUB}/providers/Microsoft.KeyVault/{kind}{V}") == []


async def test_groups_are_listed_shown_and_probed(client):
    """With those of accounts, of vaults and of the data; HEAD is how clients ask whether one exists."""
    path = f"/subscriptions/{SUB}/resourcegroups"
    version = "?api-version=2024-11-01"
    assert await names(client, f"{path}{version}") == ["empty", "rg", "Secrets"]
    assert await names(client, f"{path}{version}&$filter=tagname eq 'Team' and tagvalue eq 'fx'") == ["empty"]
    _, group, _ = await client.arm(f"{path}/EMPTY{version}")
    assert group == {
        "id": f"/subscriptions/{SUB}/resourceGroups/empty",
        "name": "empty",
        "type": "Microsoft.Resources/resourceGroups",
        "location": "westeurope",
        "properties": {"provisioningState": "Succeeded"},
        "tags": {"Team": "fx"},
    }
    assert [(await client.arm(f"{path}/{name}{version}", "HEAD"))[0] for name in ("rg", "none")] == [204, 404]
    accounts = (
        f"/subscriptions/{SUB}/resourceGroups/empty/providers/Microsoft.Batch/batchAccounts?api-version=2025-06-01"
    )
    assert (await client.arm(accounts))[1] == {"value": []}


async def test_subscriptions_have_names_and_regions(client):
    """A subscription without resources is listed, too."""
    _, body, _ = await client.arm("/subscriptions?api-version=2022-12-01")
    assert [each["subscriptionId"] for each in body["value"]] == [OTHER, SUB]
    _, regions, _ = await client.arm(f"/subscriptions/{OTHER}/locations?api-version=2022-12-01")
    assert "westeurope" in [each["name"] for each in regions["value"]]


async def test_listings_show_what_a_role_allows():
    """A role on one account shows that account; without any role a listing is refused."""
    group = {"subscription_id": SUB, "resource_group": "rg"}
    content = EmulatorData.model_validate(
        {
            "accounts": [AccountData(**group, name=f"acct{n}") for n in range(3)],
            "vaults": [{"name": "kv-a"}, {"name": "kv-denied"}],
            "identities": [
                {"name": "reader", "roles": [{"role": "Reader", "scope": "acct1"}]}
            ],
            "subscriptions": [OTHER],
        }
    )  # fmt: skip
    async with Emulator(content) as azure, connect(azure) as client:
        accounts = f"/subscriptions/{SUB}/providers/Microsoft.Batch/batchAccounts?api-version=2025-06-01"
        assert await names(client, accounts) == ["acct1"]
        assert await names(client, ALL) == ["acct1"]
        assert await names(client, f"{VAULTS}{V}") == []
        status, body, _ = await client.arm(accounts.replace(SUB, OTHER))
        assert (status, body["error"]["code"]) == (403, "AuthorizationFailed")
        _, body, _ = await client.arm("/subscriptions?api-version=2022-12-01")
        assert [each["subscriptionId"] for each in body["value"]] == [SUB]
