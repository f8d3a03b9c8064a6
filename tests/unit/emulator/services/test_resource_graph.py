"""Resource Graph, with requests through the pipeline of the Batch SDK and with plain ones."""

import pytest
from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpRequest

from keysync.emulator import AccountData, Emulator, EmulatorData, Fault, VaultData
from tests.unit.emulator.conftest import SUB, connect

OTHER, UNKNOWN = SUB.replace("1", "2"), SUB.replace("1", "3")
ACCOUNTS = "resources | where type =~ 'Microsoft.Batch/batchAccounts' | project id, name | order by name asc"
VAULTS = [VaultData(name="kv-a"), VaultData(name="kv-denied")]
PATH = "/providers/Microsoft.ResourceGraph/resources?api-version=2021-03-01"


@pytest.fixture
async def azure():
    group = {"subscription_id": SUB, "resource_group": "RG-one"}
    content = EmulatorData(
        graph_page_size=2,
        accounts=[
            *(AccountData(**group, name=f"acct{n}") for n in range(3)),
            AccountData(subscription_id=OTHER, resource_group="rg", name="zeta", tags={"Team": "fx"}),
            AccountData(subscription_id=OTHER, resource_group="rg", name="yota", provisioning_state="Creating"),
        ],
        vaults=VAULTS,
    )
    async with Emulator(content) as running:
        yield running


@pytest.fixture
async def ask(azure):
    """Sends one query; returns the JSON of the reply."""
    async with connect(azure) as client:

        async def send(query, *subscriptions, **options):
            request_options = {f"${name}": value for name, value in options.items() if value is not None}
            body = {"query": query, "subscriptions": list(subscriptions), "options": request_options}
            response = await client.batch.send_request(HttpRequest("POST", PATH, json=body))
            response.raise_for_status()
            return response.json()

        yield send


async def test_results_are_paged(ask, azure):
    """The token leads through all requested subscriptions. The last page has none."""
    names, token = [], None
    while True:
        page = await ask(ACCOUNTS, SUB, OTHER, skipToken=token, top=1000)
        names += [row["name"] for row in page["data"]]
        assert (page["totalRecords"], page["count"], page["resultTruncated"]) == (5, len(page["data"]), "false")
        token = page.get("$skipToken")
        if token is None:
            break
    assert names == ["acct0", "acct1", "acct2", "yota", "zeta"]
    assert azure.counts["queryResources"] == 3


async def test_unknown_subscriptions_are_ignored(ask):
    """It is an error only if all subscriptions are unknown."""
    page = await ask("resourcecontainers | where type =~ 'microsoft.resources/subscriptions' | project subscriptionId", OTHER, UNKNOWN)  # fmt: skip
    assert page["data"] == [{"subscriptionId": OTHER}]
    with pytest.raises(HttpResponseError) as caught:
        await ask(ACCOUNTS, UNKNOWN)
    assert caught.value.error.details[0].code == "NoValidSubscriptionsInQueryRequest"


async def test_columns_and_filters(ask):
    """Properties by path, as text or unchanged. Groups ignore case."""
    query = (
        "Resources | where type =~ 'microsoft.batch/batchaccounts' | where resourceGroup in~ ('x|\\'y', 'RG')"
        " | project name, tags, state = tostring(properties.provisioningState), properties.poolAllocationMode"
        " | order by name desc"
    )
    page = await ask(query, SUB, OTHER)
    assert page["data"][0] == {
        "name": "zeta",
        "tags": {"Team": "fx"},
        "state": "Succeeded",
        "properties_poolAllocationMode": "BatchService",
    }
    assert [row["state"] for row in page["data"]] == ["Succeeded", "Creating"]


async def test_a_limit_truncates_the_result(ask):
    """The reply has no token for the rest, and says that it is truncated."""
    page = await ask(ACCOUNTS + " | limit 1", SUB)
    assert (page["count"], page["resultTruncated"], page.get("$skipToken")) == (1, "true", None)


@pytest.mark.parametrize(
    "query", ["nothing | project id", "resources | summarize count()", "resources | project id, 1 + 1", " "]
)
async def test_unsupported_queries_are_refused(ask, query):
    """An error is better than a wrong result."""
    with pytest.raises(HttpResponseError) as caught:
        await ask(query, SUB)
    assert caught.value.status_code == 400


async def test_tokens_and_versions_are_checked(azure):
    """An invalid token, another api-version, another method, and a body that is not JSON."""
    async with connect(azure) as client:
        invalid = {"query": ACCOUNTS, "options": {"$skipToken": "?"}}
        assert (await client.arm(PATH, "POST", json=invalid))[0] == 400
        assert (await client.arm(PATH, "POST", json={"query": ACCOUNTS, "options": {"$skipToken": "YWJj"}}))[0] == 400
        assert (await client.arm(PATH.replace("2021-03-01", "2001-01-01"), "POST", json={"query": ACCOUNTS}))[0] == 404
        content = {"Content-Type": "application/json"}
        assert (await client.arm(PATH, "POST", data="{", headers=content))[0] == 400
        assert (await client.arm(PATH, "POST", data="{"))[0] == 415
        assert (await client.arm(PATH))[0] == 405


async def test_queries_are_throttled_with_limits():
    """15 queries succeed, the next is 429 with the headers that say when to retry."""
    async with (
        Emulator(EmulatorData(subscriptions=[SUB], vaults=VAULTS), limits=True) as azure,
        connect(azure) as client,
    ):
        replies = [await client.arm(PATH, "POST", json={"query": ACCOUNTS}) for _ in range(16)]
        assert [headers["x-ms-user-quota-remaining"] for _, _, headers in replies[:15]][-2:] == ["1", "0"]
        status, body, headers = replies[-1]
        assert (status, body["error"]["code"], headers["Retry-After"]) == (429, "RateLimiting", "1")


async def test_a_fault_can_target_a_table(ask, azure):
    """Queries of other tables succeed."""
    azure.faults.add(
        Fault(operation="queryResources", target="resourcecontainers", status=403, code="AuthorizationFailed")
    )
    assert (await ask(ACCOUNTS, SUB))["count"] == 2
    with pytest.raises(HttpResponseError) as caught:
        await ask("resourcecontainers | project id", SUB)
    assert caught.value.error.code == "AuthorizationFailed"


async def test_rows_are_what_a_role_allows():
    """A role on one account shows that account and its subscription; vaults are rows, too."""
    group = {"subscription_id": SUB, "resource_group": "rg"}
    accounts = [AccountData(**group, name="acct0"), AccountData(**group, name="acct1")]
    reader = {"name": "reader", "roles": [{"role": "Reader", "scope": "acct1"}, {"role": "Reader", "scope": "kv-a"}]}
    content = EmulatorData.model_validate(
        {"subscriptions": [OTHER], "accounts": accounts, "vaults": VAULTS, "identities": [reader]}
    )
    async with Emulator(content) as azure, connect(azure) as client:
        _, page, _ = await client.arm(PATH, "POST", json={"query": "resources | project id, type, subscriptionId"})
        assert [(row["id"].rpartition("/")[2], row["type"]) for row in page["data"]] == [
            ("acct1", "microsoft.batch/batchaccounts"),
            ("kv-a", "microsoft.keyvault/vaults"),
        ]
        assert {row["subscriptionId"] for row in page["data"]} == {SUB}
        status, body, _ = await client.arm(PATH, "POST", json={"query": "resources", "subscriptions": [OTHER]})
        assert (status, body["error"]["details"][0]["code"]) == (400, "NoValidSubscriptionsInQueryRequest")
