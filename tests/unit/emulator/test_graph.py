"""Resource Graph, by the real SDK and by hand."""

import pytest
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.transport import AioHttpTransport
from azure.mgmt.resourcegraph.aio import ResourceGraphClient
from azure.mgmt.resourcegraph.models import QueryRequest, QueryRequestOptions

from keysync.emulator import AccountData, Emulator, EmulatorData, Fault, VaultData

from .conftest import SUB, connect

OTHER, NOBODYS = SUB.replace("1", "2"), SUB.replace("1", "3")
ACCOUNTS = "resources | where type =~ 'Microsoft.Batch/batchAccounts' | project id, name | order by name asc"
VAULTS = [VaultData(name="kv-a"), VaultData(name="kv-denied")]
PATH = "/providers/Microsoft.ResourceGraph/resources?api-version=2021-03-01"


@pytest.fixture
async def azure():
    one = {"subscription_id": SUB, "resource_group": "RG-one"}
    content = EmulatorData(
        graph_page_size=2,
        accounts=[
            *(AccountData(**one, name=f"acct{n}") for n in range(3)),
            AccountData(subscription_id=OTHER, resource_group="rg", name="zeta", tags={"Team": "fx"}),
            AccountData(subscription_id=OTHER, resource_group="rg", name="yota", provisioning_state="Creating"),
        ],
        vaults=VAULTS,
    )
    async with Emulator(content) as running:
        yield running


@pytest.fixture
async def ask(azure):
    """Asks one query by the SDK."""
    async with connect(azure) as client:
        base = azure.endpoints.resource_manager
        graph = ResourceGraphClient(
            client.credential,
            base_url=base,
            credential_scopes=[f"{base}/.default"],
            transport=AioHttpTransport(session=client.session, session_owner=False),
            retry_total=0,
        )

        async def send(query, *subscriptions, **options):
            told = QueryRequestOptions(**options)
            return await graph.resources(QueryRequest(query=query, subscriptions=list(subscriptions), options=told))

        yield send


async def test_pages_follow_one_another(ask, azure):
    """The token leads on, over all subscriptions asked for, and the last page has none."""
    names, token = [], None
    while True:
        page = await ask(ACCOUNTS, SUB, OTHER, skip_token=token, top=1000)
        names += [row["name"] for row in page.data]
        assert (page.total_records, page.count, page.result_truncated) == (5, len(page.data), "false")
        token = page.skip_token
        if token is None:
            break
    assert names == ["acct0", "acct1", "acct2", "yota", "zeta"]
    assert azure.counts["queryResources"] == 3


async def test_what_is_not_there_is_left_out_without_a_word(ask):
    """A subscription that nobody knows, or may see, has no rows; only where all are such it is an error."""
    page = await ask("resourcecontainers | where type =~ 'microsoft.resources/subscriptions' | project subscriptionId", OTHER, NOBODYS)  # fmt: skip
    assert page.data == [{"subscriptionId": OTHER}]
    with pytest.raises(HttpResponseError) as caught:
        await ask(ACCOUNTS, NOBODYS)
    assert caught.value.error.details[0].code == "NoValidSubscriptionsInQueryRequest"


async def test_columns_and_filters(ask):
    """Properties by their path, as text or as they are; groups without case."""
    query = (
        "Resources | where type =~ 'microsoft.batch/batchaccounts' | where resourceGroup in~ ('x|\\'y', 'RG')"
        " | project name, tags, state = tostring(properties.provisioningState), properties.poolAllocationMode"
        " | order by name desc"
    )
    page = await ask(query, SUB, OTHER)
    assert page.data[0] == {
        "name": "zeta",
        "tags": {"Team": "fx"},
        "state": "Succeeded",
        "properties_poolAllocationMode": "BatchService",
    }
    assert [row["state"] for row in page.data] == ["Succeeded", "Creating"]


async def test_a_limit_truncates(ask):
    """There is no way to the rest then, and the reply says so."""
    page = await ask(ACCOUNTS + " | limit 1", SUB)
    assert (page.count, page.result_truncated, page.skip_token) == (1, "true", None)


@pytest.mark.parametrize(
    "query", ["nothing | project id", "resources | summarize count()", "resources | project id, 1 + 1", " "]
)
async def test_what_it_does_not_know_is_refused(ask, query):
    """No answer is better than a wrong one."""
    with pytest.raises(HttpResponseError) as caught:
        await ask(query, SUB)
    assert caught.value.status_code == 400


async def test_tokens_and_versions_are_checked(azure):
    """A token of somebody else, another api-version, another method, and no JSON."""
    async with connect(azure) as client:
        wrong = {"query": ACCOUNTS, "options": {"$skipToken": "?"}}
        assert (await client.arm(PATH, "POST", json=wrong))[0] == 400
        assert (await client.arm(PATH, "POST", json={"query": ACCOUNTS, "options": {"$skipToken": "YWJj"}}))[0] == 400
        assert (await client.arm(PATH.replace("2021-03-01", "2001-01-01"), "POST", json={"query": ACCOUNTS}))[0] == 400
        assert (await client.arm(PATH, "POST", data="{"))[0] == 400
        assert (await client.arm(PATH))[0] == 404


async def test_queries_are_counted_where_limits_are_on():
    """Fifteen at once, then 429 with the headers that say when to come again."""
    async with (
        Emulator(EmulatorData(subscriptions=[SUB], vaults=VAULTS), limits=True) as azure,
        connect(azure) as client,
    ):
        replies = [await client.arm(PATH, "POST", json={"query": ACCOUNTS}) for _ in range(16)]
        assert [headers["x-ms-user-quota-remaining"] for _, _, headers in replies[:15]][-2:] == ["1", "0"]
        status, body, headers = replies[-1]
        assert (status, body["error"]["code"], headers["Retry-After"]) == (429, "RateLimiting", "1")


async def test_faults_are_aimed_at_a_table(ask, azure):
    """One query fails, the other does not."""
    azure.faults.add(
        Fault(operation="queryResources", target="resourcecontainers", status=403, code="AuthorizationFailed")
    )
    assert (await ask(ACCOUNTS, SUB)).count == 2
    with pytest.raises(HttpResponseError) as caught:
        await ask("resourcecontainers | project id", SUB)
    assert caught.value.error.code == "AuthorizationFailed"
