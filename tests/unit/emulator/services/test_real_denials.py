"""Refusals of Entra, Resource Manager and Key Vault, compared with real replies field by field."""

import json
import re
from pathlib import Path

import aiohttp
import jwt
import pytest
from azure.identity.aio import ManagedIdentityCredential

from keysync.emulator import AccountData, Emulator, EmulatorData, Fault, VaultData
from keysync.emulator.identity_data import AccessPolicyData, DenyAssignmentData, FederatedData, IdentityData, RoleData
from tests.support.replay import Recorded
from tests.unit.emulator.conftest import Clock, connect

FOLDER = Path(__file__).parents[3] / "data" / "real_replies"
TENANT, CLIENT, OBJECT, SUB = (f"00000000-0000-0000-0000-0000000000{end}" for end in ("aa", "cc", "dd", "01"))
ASSERTION_START, ASSERTION_END = 1_690_882_106, 1_690_885_706
"""Of the recorded assertion: 2023-08-01 from 09:28:26 to 10:28:26."""

VARIABLE = {
    r"(?<=Trace ID: )[\w-]+": "TRACE",
    r"(?<=Correlation ID: )[\w-]+": "CORRELATION",
    r"(?<=Timestamp: )[\d-]+ [\d:]+Z": "TIME",
    r"(?<=Current time: )[\w:.-]+Z": "TIME",
    r"https://(login\.microsoftonline\.com|localhost:\d+)/error": "ERROR",
    "in the directory '[^']+'": "in the directory 'X'",  # the display name, which the emulator does not have
}


def recorded(case):
    """The status and the body of a real reply."""
    response = Recorded.read(FOLDER / f"{case}.json").response
    return response["status"], response["body"]


def comparable(body):
    """A body without the parts that differ from one request to the next."""
    text = json.dumps(
        {name: value for name, value in body.items() if name not in {"timestamp", "trace_id", "correlation_id"}}
    )
    for pattern, word in VARIABLE.items():
        text = re.sub(pattern, word, text)
    return json.loads(text)


def world(**fields):
    """The account, the vault and the identity of the recorded replies."""
    group = "default-azurebatch-japaneast"
    account = AccountData(subscription_id=SUB, resource_group=group, name="sampleacct", location="japaneast")
    policies = fields.pop("access_policies", False)
    place = {"subscription_id": SUB, "resource_group": "rg1", "location": "japaneast"}
    vaults = [
        VaultData(name="kv-replay", access_policies=policies, **place),
        VaultData(name="kv-a"),
        VaultData(name="kv-denied"),
    ]
    identity = {
        "name": "sync",
        "client_id": CLIENT,
        "object_id": OBJECT,
        "client_secret": "right",
        **fields.pop("identity", {}),
    }
    return Emulator(
        EmulatorData(
            tenant_id=TENANT, accounts=[account], vaults=vaults, identities=[IdentityData(**identity)], **fields
        ),
        clock=Clock(),
    )


async def token(client, tenant=TENANT, **fields):
    """A token request: its status and body."""
    form = {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": "right"}
    form |= {"scope": "https://vault.azure.net/.default", **fields}
    url = f"{client.azure.endpoints.authority}/{tenant}/oauth2/v2.0/token"
    async with client.session.post(
        url, data={name: value for name, value in form.items() if value is not None}
    ) as reply:
        return reply.status, await reply.json()


async def ask(client, base, method, path, resource):
    """A request with a token: its status and body."""
    _, body = await token(client, scope=f"{resource}/.default")
    headers = {"Authorization": f"Bearer {body['access_token']}"}
    async with client.session.request(method, f"{base}{path}", headers=headers, json={"value": "x"}) as reply:
        return reply.status, await reply.json()


@pytest.mark.parametrize(
    ("case", "policies"),
    [
        ("kv-403-rbac-get", False),
        ("kv-403-rbac-set", False),
        ("kv-403-access-policy-ForbiddenByPolicy-get", [AccessPolicyData(identity="sync", secrets=["list", "set"])]),
        ("kv-403-ForbiddenByPolicy-obo", [AccessPolicyData(identity="sync", secrets=["get"], on_behalf_of=True)]),
    ],
)
async def test_key_vault_denies_as_recorded(case, policies):
    """With roles and with access policies."""
    request = Recorded.read(FOLDER / f"{case}.json").request
    async with world(access_policies=policies) as azure, connect(azure) as client:
        path = f"{request['path']}?api-version={request['api_version']}"
        answer = await ask(
            client, azure.endpoints.vaults["kv-replay"], request["method"], path, "https://vault.azure.net"
        )
    assert answer == recorded(case)


@pytest.mark.parametrize(
    ("case", "fields"),
    [
        ("arm-authorization-failed-2022", {}),
        (
            "arm-deny-assignment",
            {
                "identity": {"roles": [RoleData(role="Azure Batch Account Contributor")]},
                "deny_assignments": [DenyAssignmentData(id="0000", scope=f"/subscriptions/{SUB}")],
            },
        ),
    ],
)
async def test_resource_manager_denies_as_recorded(case, fields):
    """Without a role, and by a deny assignment in spite of one."""
    request = Recorded.read(FOLDER / f"{case}.json").request
    async with world(**fields) as azure, connect(azure) as client:
        path = f"{request['path']}?api-version={request['api_version']}"
        answer = await ask(client, azure.endpoints.resource_manager, "POST", path, "https://management.azure.com")
    assert answer == recorded(case)


@pytest.mark.parametrize(
    ("case", "identity", "fields"),
    [
        ("aad-700016", {"client_id": CLIENT.replace("cc", "ce")}, {}),
        ("aad-7000215", {}, {"client_secret": "wrong"}),
        ("aad-7000222", {"client_secret_expires": 1_800_000_000}, {}),
        (
            "aad-700024-federated",
            {"any_assertion": True},
            {"client_secret": None, "client_assertion": {"nbf": ASSERTION_START, "exp": ASSERTION_END}},
        ),
        (
            "aad-700211-federated-issuer",
            {"federated": [FederatedData(issuer="https://other.example/", subject="s")]},
            {"client_secret": None, "client_assertion": {"iss": "https://oidc.example/"}},
        ),
    ],
)
async def test_entra_refuses_as_recorded(case, identity, fields):
    """Each way in which a sign-in fails."""
    claims = fields.get("client_assertion")
    if claims is not None:
        assertion = jwt.encode(claims, "a-key-that-the-emulator-does-not-check", algorithm="HS256")
        fields = {**fields, "client_assertion": assertion}
    async with world(identity=identity) as azure, connect(azure) as client:
        status, body = await token(client, **fields)
    expected_status, expected = recorded(case)
    assert (status, comparable(body)) == (expected_status, comparable(expected))


async def test_an_unknown_tenant_and_a_busy_directory_are_refused_as_recorded():
    """The busy directory is a fault of the caller."""
    async with world() as azure, connect(azure) as client:
        status, body = await token(client, TENANT.replace("aa", "ab"))
        expected_status, expected = recorded("aad-90002-token")
        body["error_description"] = body["error_description"].replace(TENANT.replace("aa", "ab"), TENANT)
        assert (status, comparable(body)) == (expected_status, comparable(expected))
        for case, code in (("aad-429-90025", "AADSTS90025"), ("aad-503-90033", "AADSTS90033")):
            expected_status, expected = recorded(case)
            azure.faults.add(Fault(operation="token", status=expected_status, code=code, times=1))
            status, body = await token(client)
            assert (status, comparable(body)) == (expected_status, comparable(expected))


async def test_a_token_has_the_recorded_fields():
    """A token that lives an hour has no `refresh_in`."""
    expected_status, expected = recorded("aad-token-200-no-refresh-in-3599")
    async with world(token_lifetime=3599) as azure, connect(azure) as client:
        status, body = await token(client)
    assert status == expected_status
    assert {**body, "access_token": ""} == {**expected, "access_token": ""}


@pytest.mark.parametrize(
    ("case", "path", "headers", "query"),
    [
        ("msi-appservice-200", "/msi/token", {"X-IDENTITY-HEADER": "secret"}, {}),
        ("msi-imds-200", "/metadata/identity/oauth2/token", {"Metadata": "true"}, {}),
        (
            "msi-imds-400-not-found",
            "/metadata/identity/oauth2/token",
            {"Metadata": "true"},
            {"client_id": OBJECT + "0"},
        ),
    ],
)
async def test_managed_identities_reply_as_recorded(case, path, headers, query):
    """In App Service and on a machine."""
    expected_status, expected = recorded(case)
    identity = {"type": "managed_identity", "client_secret": None}
    async with world(identity=identity, token_lifetime=86_399) as azure, aiohttp.ClientSession() as session:
        ends = azure.endpoints
        headers = {name: ends.identity_header if value == "secret" else value for name, value in headers.items()}
        query = {"resource": "https://vault.azure.net", "api-version": "2019-08-01", **query}
        async with session.get(f"{ends.control}{path}", headers=headers, params=query) as reply:
            status, body = reply.status, await reply.json()
    now = 1_800_000_000
    if status == 200:
        expected |= {"access_token": body["access_token"], "expires_on": str(now + 86_399)}
    if "not_before" in body:
        expected["not_before"] = str(now)
    assert (status, body) == (expected_status, expected)


async def test_the_sdk_signs_in_at_the_metadata_service(monkeypatch):
    """Its address is in a variable."""
    async with world(identity={"type": "managed_identity", "client_secret": None}) as azure:
        for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure.endpoints.control)
        async with ManagedIdentityCredential() as credential:
            token = (await credential.get_token("https://vault.azure.net/.default")).token
    assert jwt.decode(token, options={"verify_signature": False})["oid"] == OBJECT
