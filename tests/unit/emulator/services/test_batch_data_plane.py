"""The data plane of Batch accounts, with the unmodified azure-batch client and with plain requests."""

import base64
import hashlib
import hmac
import socket
import time
from contextlib import asynccontextmanager
from email.utils import formatdate

import aiohttp
import pytest
from azure.batch.aio import BatchClient
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.core.pipeline.transport import AioHttpTransport

from keysync.emulator import AccountData, Emulator, EmulatorData, Fault, VaultData
from keysync.emulator.identity_data import IdentityData, RoleData
from tests.unit.emulator.conftest import OTHER_TENANT, SUB, connect, credential_of

GROUP = {"subscription_id": SUB, "resource_group": "rg"}
VAULTS = [VaultData(name="kv-a"), VaultData(name="kv-denied")]  # of `connect`
VERSION = "api-version=2024-07-01.20.0"


class RealClock:
    """The time of this machine, which the clients sign, and the seconds that a test added."""

    ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


def sample() -> EmulatorData:
    return EmulatorData(
        accounts=[
            AccountData(**GROUP, name="farm1", jobs=[f"job{n}" for n in range(5)], pools=["small", "large"]),
            AccountData(**GROUP, name="farm2", key_delay=60),
            AccountData(**GROUP, name="nokeys", allowed_authentication_modes=["AAD"]),
            AccountData(**GROUP, name="usersub", pool_allocation_mode="UserSubscription"),
            AccountData(**GROUP, name="keysonly", allowed_authentication_modes=["SharedKey"]),
            AccountData(**GROUP, name="denied", denied=["listJobs"]),
        ],
        vaults=VAULTS,
    )


@pytest.fixture
def clock():
    return RealClock()


@pytest.fixture
async def azure(clock):
    async with Emulator(sample(), clock=clock) as running:
        yield running


async def endpoint(client, name):
    """The URL of an account's data plane, found as any client finds it."""
    return f"https://{(await client.batch.batch_account.get('rg', name)).account_endpoint}"


@asynccontextmanager
async def batch(client, name, credential=None, *, url=None):
    """azure-batch for an account, with its primary key unless `credential` is given."""
    key = credential or AzureNamedKeyCredential(name, client.azure.state.keys(name)[0])
    transport = AioHttpTransport(session=client.session, session_owner=False)
    async with BatchClient(url or await endpoint(client, name), key, transport=transport, retry_total=0) as connected:
        yield connected


async def refusal(client, name, credential=None, *, url=None):
    """The error of a sign-in, with its details by key."""
    async with batch(client, name, credential, url=url) as connected:
        with pytest.raises(HttpResponseError) as caught:
            await anext(connected.list_supported_images())
    body = caught.value.model.as_dict()
    return caught.value, {each["key"]: each["value"] for each in body.get("values", [])}


@pytest.mark.parametrize("slot", [0, 1])
async def test_both_keys_sign_in(client, azure, slot):
    """Every list is read to its end."""
    key = AzureNamedKeyCredential("farm1", azure.state.keys("farm1")[slot])
    async with batch(client, "farm1", key) as connected:
        images = [image.node_agent_sku_id async for image in connected.list_supported_images(max_results=2)]
        assert [job.id async for job in connected.list_jobs(max_results=2)] == [f"job{n}" for n in range(5)]
        assert [pool.id async for pool in connected.list_pools(service_timeout=20)] == ["small", "large"]
        assert [counts.pool_id async for counts in connected.list_pool_node_counts()] == ["small", "large"]
        job = await connected.get_job("job3")
        assert (job.state, job.pool_info.pool_id) == ("active", "small")
        assert await connected.pool_exists("large")
        with pytest.raises(ResourceNotFoundError):  # the client has this policy before the one that would say False
            await connected.pool_exists("missing")
        with pytest.raises(ResourceNotFoundError) as caught:
            await connected.get_job("missing")
        assert caught.value.error.code == "JobNotFound"
    assert "batch.node.ubuntu 22.04" in images
    assert len(images) == 5
    assert azure.counts["listSupportedImages"] == azure.counts["listJobs"] == 3


async def test_a_token_signs_in(client):
    """The SDK asks for the audience with its slash."""
    async with batch(client, "nokeys", client.credential) as connected:
        assert [job.id async for job in connected.list_jobs()] == []
        assert (await anext(connected.list_supported_images())).os_type == "linux"


async def test_the_shared_address_knows_the_account_by_its_signature(client, azure):
    """Also when the account has a port of its own. A token does not say the account."""
    async with batch(client, "farm1", url=azure.endpoints.batch) as connected:
        assert len([job async for job in connected.list_jobs()]) == 5
    async with batch(client, "farm1", client.credential, url=azure.endpoints.batch) as connected:
        with pytest.raises(ResourceNotFoundError, match="ResourceNotFound"):
            await anext(connected.list_jobs())


async def test_an_account_is_served_by_name(client, azure):
    """As NAME.REGION.localhost, for machines that resolve it."""
    headers = {
        "Authorization": f"Bearer {await client.token('https://batch.core.windows.net/')}",
        "Host": f"farm1.westeurope.localhost:{azure.endpoints.batch.rpartition(':')[2]}",
    }
    url = f"{azure.endpoints.batch}/jobs?{VERSION}"
    async with client.session.get(url, headers=headers, server_hostname="farm1.westeurope.localhost") as reply:
        assert len((await reply.json(content_type=None))["value"]) == 5


@pytest.mark.parametrize("name", ["farm000", "farm059"])
async def test_azures_own_name_leads_to_an_account(name):
    """Through the proxy, also to an account without a port of its own."""
    accounts = [AccountData(**GROUP, name=f"farm{n:03}", jobs=[f"job{n}"]) for n in range(60)]
    async with Emulator(EmulatorData(accounts=accounts, vaults=VAULTS)) as azure, connect(azure) as client:
        headers = {"Authorization": f"Bearer {await client.token('https://batch.core.windows.net/')}"}
        url = f"https://{name}.westeurope.batch.azure.com/jobs?{VERSION}"
        async with client.session.get(url, headers=headers, proxy=azure.endpoints.proxy) as reply:
            jobs = [job["id"] for job in (await reply.json(content_type=None))["value"]]
    assert jobs == [f"job{int(name[4:])}"]


async def test_every_account_has_an_endpoint():
    """The first accounts have a port each, the others share one, also accounts that are added later."""
    many = EmulatorData(accounts=[AccountData(**GROUP, name=f"farm{n:03}") for n in range(60)], vaults=VAULTS)
    async with Emulator(many) as azure:
        azure.state.add_account(AccountData(**GROUP, name="later"))
        endpoints = [account.endpoint for account in azure.state.accounts.values()]
        assert len(set(endpoints[:50])) == 50
        assert {f"https://{endpoint}" for endpoint in endpoints[50:]} == {azure.endpoints.batch}
        host, port = endpoints[0].split(":")
        assert socket.getaddrinfo(host, port)
        async with connect(azure) as client, batch(client, "later") as connected:
            assert [job async for job in connected.list_jobs()] == []


async def test_a_replaced_key_is_refused_at_once(client, azure):
    """The body repeats the string that was signed, as in https://github.com/Azure/azure-sdk-for-net/issues/3170."""
    async with batch(client, "farm1") as connected:
        assert await anext(connected.list_jobs())
        azure.state.regenerate("farm1", "Primary")
        with pytest.raises(HttpResponseError) as caught:
            await anext(connected.list_jobs())
    error = caught.value
    assert (error.status_code, error.error.code) == (403, "AuthenticationFailed")
    assert error.error.message.splitlines()[0] == (
        "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including "
        "the signature."
    )
    sent = error.response.request.headers
    assert error.error.details[0].message == (
        f"The MAC signature found in the HTTP request '{sent['Authorization'].rpartition(':')[2]}' is not the same as any "
        f"computed signature. Server used following string to sign: 'GET{chr(10) * 12}ocp-date:{sent['ocp-date']}\n"
        "/farm1/jobs\napi-version:2025-06-01'."
    )
    async with batch(client, "farm1") as connected:
        assert await anext(connected.list_jobs())


async def test_a_replaced_key_is_accepted_for_a_while(client, azure, clock):
    """`key_delay` seconds, as on a service whose nodes learn of it late. The new key is accepted at once."""
    old = AzureNamedKeyCredential("farm2", azure.state.keys("farm2")[1])
    azure.state.regenerate("farm2", "Secondary")
    new = AzureNamedKeyCredential("farm2", azure.state.keys("farm2")[1])
    for key in (old, new):
        async with batch(client, "farm2", key) as connected:
            assert await anext(connected.list_supported_images())
    clock.ahead = 61
    error, _ = await refusal(client, "farm2", old)
    assert error.status_code == 403
    async with batch(client, "farm2", new) as connected:
        assert await anext(connected.list_supported_images())


@pytest.mark.parametrize("name", ["nokeys", "usersub"])
async def test_shared_key_may_not_be_allowed(client, name):
    """As in https://github.com/Azure/BatchExplorer/issues/239."""
    error, details = await refusal(client, name)
    assert (error.status_code, error.error.code) == (403, "AuthenticationFailed")
    assert details == {
        "AuthenticationErrorDetail": "The specified type of authentication SharedKey is not allowed for this account."
    }


async def test_tokens_may_not_be_allowed(client):
    """`allowed_authentication_modes` without AAD."""
    error, details = await refusal(client, "keysonly", client.credential)
    assert isinstance(error, ClientAuthenticationError)
    assert "AAD is not allowed" in details["AuthenticationErrorDetail"]


async def test_a_role_may_be_missing(client):
    """A denied operation is refused for tokens, and not for keys."""
    async with batch(client, "denied", client.credential) as connected:
        assert await anext(connected.list_supported_images())
        with pytest.raises(HttpResponseError) as caught:
            await anext(connected.list_jobs())
    assert (caught.value.status_code, caught.value.error.code) == (403, "AuthorizationFailure")
    async with batch(client, "denied") as connected:
        assert [job async for job in connected.list_jobs()] == []


async def test_the_audience_counts_with_its_slash(client):
    """The reply of https://github.com/AzureAD/microsoft-authentication-library-for-js/issues/1735, field by field."""
    url = await endpoint(client, "farm1")
    token = await client.token("https://batch.core.windows.net")
    async with client.session.get(f"{url}/jobs?{VERSION}", headers={"Authorization": f"Bearer {token}"}) as reply:
        body = await reply.json(content_type=None)
        assert reply.status == 401
    message, request_id, moment = body["message"].pop("value").splitlines()
    assert message == (
        "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly."
    )
    assert request_id == f"RequestId:{reply.headers['request-id']}"
    assert moment.startswith("Time:20")
    assert body == {
        "odata.metadata": f"{url}/$metadata#Microsoft.Azure.Batch.Protocol.Entities.Container.errors/@Element",
        "code": "AuthenticationFailed",
        "message": {"lang": "en-US"},
        "values": [
            {
                "key": "AuthenticationErrorDetail",
                "value": (
                    "The access token has been obtained from wrong audience or resource 'https://batch.core.windows.net'. "
                    "It should exactly match (including forward slash) with one of the allowed audiences "
                    "'https://batch.core.windows.net/'"
                ),
            }
        ],
    }


async def test_old_revoked_and_other_tokens_are_refused(client, azure, clock):
    """Each with its reason."""

    class Fixed:
        def __init__(self, token):
            self.token = token

        async def get_token(self, *_scopes, **_options):
            return type("Token", (), {"token": self.token, "expires_on": 2**40})()

    url = await endpoint(client, "farm1")

    async def reason(token):
        error, details = await refusal(client, "farm1", Fixed(token), url=url)
        assert error.status_code == 401
        return details["AuthenticationErrorDetail"]

    good = await client.token("https://batch.core.windows.net/")
    assert "invalid" in await reason(f"{good}x")
    clock.ahead = 7200
    assert "is earlier than current UTC time" in await reason(good)
    clock.ahead = 0
    azure.revoke_tokens()
    assert "invalid" in await reason(good)


async def test_a_token_of_another_tenant_is_refused(client, azure):
    """The detail names both issuers."""
    azure.state.account("farm1").tenant_id = OTHER_TENANT
    url = f"https://{azure.state.account('farm1').endpoint}"
    error, details = await refusal(client, "farm1", client.credential, url=url)
    assert error.status_code == 401
    assert f"'https://sts.windows.net/{OTHER_TENANT}/'" in details["AuthenticationErrorDetail"]


@pytest.mark.parametrize(("ahead", "detail"), [(1000, "too old"), (-1000, "incorrect")])
async def test_a_date_may_be_15_minutes_off(client, clock, ahead, detail):
    """Not more."""
    clock.ahead = ahead * 0.8
    async with batch(client, "farm1") as connected:
        assert await anext(connected.list_jobs())
    clock.ahead = ahead
    error, details = await refusal(client, "farm1")
    assert (error.status_code, error.error.code) == (403, "AuthenticationFailed")
    assert detail in details["AuthenticationErrorDetail"]


def signed(azure, method, path, headers, *lines):
    """Headers with a signature made by hand, of the lines that the documentation of Batch asks for."""
    text = "\n".join([method, *lines, f"/farm1{path}"])
    key = base64.b64decode(azure.state.keys("farm1")[1])
    mac = base64.b64encode(hmac.digest(key, text.encode(), hashlib.sha256)).decode()
    return {**headers, "Authorization": f"SharedKey farm1:{mac}"}


async def test_the_documented_form_is_accepted(client, azure):
    """Signed by hand: the Date header instead of ocp-date, lowercase query names, and the length of a body."""
    url, date = await endpoint(client, "farm1"), formatdate(usegmt=True)
    query = "\napi-version:2024-07-01.20.0\nmaxresults:3\ntimeout:30"
    headers = signed(azure, "GET", f"/jobs{query}", {"Date": date}, *[""] * 5, date, *[""] * 5)
    async with client.session.get(f"{url}/jobs?timeOut=30&maxresults=3&{VERSION}", headers=headers) as reply:
        assert reply.status == 200
    content = {"Content-Type": "application/json", "ocp-date": date, "Date": date}
    lines = ["", "", "2", "", "application/json", *[""] * 6, f"ocp-date:{date}"]
    headers = signed(azure, "POST", "/jobs\napi-version:2024-07-01.20.0", content, *lines)
    async with client.session.post(f"{url}/jobs?{VERSION}", headers=headers, data=b"{}") as reply:
        assert (reply.status, (await reply.json(content_type=None))["code"]) == (405, "UnsupportedHttpVerb")


@pytest.mark.parametrize("length", ["", "0"])
async def test_a_call_without_a_body_is_signed_with_or_without_its_length(client, azure, length):
    """As JavaScript's client signs a DELETE, and as azure-batch does."""
    url, date = await endpoint(client, "farm1"), formatdate(usegmt=True)
    lines = ["", "", length, *[""] * 8, f"ocp-date:{date}"]
    headers = signed(azure, "DELETE", "/jobs/job1\napi-version:2024-07-01.20.0", {"ocp-date": date}, *lines)
    async with client.session.delete(f"{url}/jobs/job1?{VERSION}", headers=headers) as reply:
        assert reply.status == 405


async def test_the_client_deletes_nothing(client):
    """The call is signed in, and not served."""
    async with batch(client, "farm1") as connected:
        with pytest.raises(HttpResponseError) as caught:
            await connected.begin_delete_job("job1")
    assert (caught.value.status_code, caught.value.error.code) == (405, "UnsupportedHttpVerb")


@pytest.mark.parametrize(
    ("role", "refused"),
    [
        ("Contributor", []),
        ("Azure Batch Account Reader", []),
        ("Azure Batch Job Submitter", ["images"]),
        ("Key Vault Administrator", ["images", "jobs", "pools"]),
    ],
)
async def test_roles_decide(clock, role, refused):
    """An action of the account, or an action on data as the roles for Batch have it."""
    identity = IdentityData(name="reader", roles=[RoleData(role=role, scope="farm1")])
    data = EmulatorData(accounts=[AccountData(**GROUP, name="farm1")], vaults=VAULTS, identities=[identity])
    async with Emulator(data, clock=clock) as azure, connect(azure) as client:
        credential = credential_of(client, client_id=identity.client_id, client_secret=identity.client_secret)
        url = f"https://{azure.state.account('farm1').endpoint}"
        async with batch(client, "farm1", credential, url=url) as connected:

            async def code(listing):
                try:
                    assert isinstance([each async for each in listing], list)
                except HttpResponseError as failure:
                    return failure.error.code
                return None

            listings = {
                "images": connected.list_supported_images(),
                "jobs": connected.list_jobs(),
                "pools": connected.list_pools(),
            }
            codes = {name: await code(listing) for name, listing in listings.items()}
        assert codes == {name: "AuthorizationFailure" if name in refused else None for name in listings}


async def test_public_network_access_may_be_disabled(client, azure):
    """No credential helps then. Resource Manager still answers."""
    azure.state.account("farm1").properties["publicNetworkAccess"] = "Disabled"
    for credential in (None, client.credential):
        error, _ = await refusal(client, "farm1", credential)
        assert (error.status_code, error.error.code) == (403, "AuthorizationFailure")


async def test_a_deleted_account_has_no_data_plane(client, azure):
    """Its port stays open, and serves nothing."""
    url, key = await endpoint(client, "farm1"), AzureNamedKeyCredential("farm1", azure.state.keys("farm1")[0])
    azure.state.delete(azure.state.account("farm1"))
    error, _ = await refusal(client, "farm1", key, url=url)
    assert (error.status_code, error.error.code) == (404, "ResourceNotFound")


@pytest.mark.parametrize(
    ("path", "authorization", "status", "code"),
    [
        ("/jobs", None, 400, "MissingRequiredQueryParameter"),
        ("/jobs?api-version=2001-01-01.1.0", None, 400, "InvalidQueryParameterValue"),
        (f"/jobs?{VERSION}", None, 401, "AuthenticationFailed"),
        (f"/jobs?{VERSION}", "SharedKey farm1", 400, "InvalidAuthenticationInfo"),
        (f"/jobs?{VERSION}", "Basic YTpi", 400, "InvalidAuthenticationInfo"),
        (f"/jobs?{VERSION}", "SharedKey farm2:AAAA", 403, "AuthenticationFailed"),
        (f"/jobs?{VERSION}&maxresults=1001", "token", 400, "OutOfRangeQueryParameterValue"),
        (f"/jobs?{VERSION}&maxresults=0", "token", 400, "OutOfRangeQueryParameterValue"),
        (f"/jobs?{VERSION}&maxresults=many", "token", 400, "InvalidQueryParameterValue"),
        (f"/jobs?{VERSION}&$skiptoken=!", "token", 400, "InvalidQueryParameterValue"),
        (f"/jobs?{VERSION}&$filter=id", "token", 400, "InvalidQueryParameterValue"),
        (f"/pools/none?{VERSION}", "token", 404, "PoolNotFound"),
        (f"/elsewhere?{VERSION}", "token", 400, "InvalidUri"),
    ],
)
async def test_errors_have_the_codes_of_batch(client, path, authorization, status, code):
    """Each is OData with the id of the request; the client's own id comes back if it asks for it."""
    headers = {"ocp-date": formatdate(usegmt=True), "client-request-id": "mine", "return-client-request-id": "true"}
    if authorization == "token":
        authorization = f"Bearer {await client.token('https://batch.core.windows.net/')}"
    if authorization:
        headers["Authorization"] = authorization
    async with client.session.get(f"{await endpoint(client, 'farm1')}{path}", headers=headers) as reply:
        body = await reply.json(content_type=None)
        assert (reply.status, body["code"]) == (status, code)
        assert f"RequestId:{reply.headers['request-id']}\n" in body["message"]["value"]
        assert reply.headers["client-request-id"] == "mine"
        if authorization is None and status == 401:
            challenge = reply.headers["WWW-Authenticate"]
            assert 'resource_id="https://batch.core.windows.net/"' in challenge
            assert f'authorization_uri="{client.azure.endpoints.authority}/' in challenge


async def test_a_fault_has_the_form_of_batch(client, azure):
    """Its code, status and Retry-After, in OData."""
    azure.faults.add(Fault(operation="listSupportedImages", target="farm1", status=503, retry_after="7"))
    error, _ = await refusal(client, "farm1")
    assert (error.status_code, error.error.code) == (503, "ServerBusy")
    assert error.response.headers["Retry-After"] == "7"
    assert error.error.message.startswith("The server is currently unable to receive requests.")


async def test_the_endpoint_refuses_other_hosts_certificates(client, azure):
    """The certificate is for localhost and the regions of the accounts only."""
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        async with client.session.get(azure.endpoints.batch, server_hostname="example.com"):
            pass
