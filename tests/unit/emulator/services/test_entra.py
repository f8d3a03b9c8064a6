"""Tokens and their errors."""

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import ClientAssertionCredential, ManagedIdentityCredential

from keysync.emulator import Fault


async def ask(client, tenant=None, **form):
    ends = client.azure.endpoints
    form = {
        "grant_type": "client_credentials",
        "client_id": ends.client_id,
        "client_secret": ends.client_secret,
        "scope": f"{ends.resource_manager}/.default",
    } | form
    async with client.session.post(
        f"{ends.authority}/{tenant or ends.tenant_id}/oauth2/v2.0/token", data=form
    ) as reply:
        return reply.status, await reply.json()


@pytest.mark.parametrize(
    ("form", "status", "error", "number"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client", 7000215),
        ({"client_secret": ""}, 401, "invalid_client", 7000216),
        ({"client_id": "unknown"}, 400, "unauthorized_client", 700016),
        ({"tenant": "nowhere"}, 400, "invalid_request", 90002),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
        ({"scope": ""}, 400, "invalid_request", 90014),
    ],
)
async def test_errors_have_the_codes_of_entra(client, form, status, error, number):
    """And the shape of Entra's errors."""
    actual, body = await ask(client, **form)
    assert (actual, body["error"], body["error_codes"]) == (status, error, [number])
    assert body["error_description"].startswith(f"AADSTS{number}: ")
    assert {"timestamp", "trace_id", "correlation_id"} <= set(body)


async def test_a_fault_returns_an_aadsts_code(client, azure):
    """For example that of an expired secret."""
    azure.faults.add(Fault(operation="token", status=401, code="AADSTS7000222"))
    with pytest.raises(ClientAuthenticationError, match="7000222"):
        await client.token("https://management.azure.com")


async def test_a_fault_can_name_the_oauth_error(client, azure):
    """Its message then contains Entra's number."""
    azure.faults.add(Fault(operation="token", status=401, code="invalid_client", message="AADSTS50034: gone"))
    status, body = await ask(client)
    assert (status, body["error"], body["error_codes"]) == (401, "invalid_client", [50034])
    assert body["error_description"].startswith("AADSTS50034: gone")


async def test_a_federated_assertion_gets_a_token(client, azure):
    """Any assertion of the known client is accepted."""
    ends = azure.endpoints
    credential = ClientAssertionCredential(
        ends.tenant_id,
        ends.client_id,
        lambda: "assertion",
        authority=ends.authority,
        disable_instance_discovery=True,
        transport=AioHttpTransport(session=client.session, session_owner=False),
    )
    assert (await credential.get_token(f"{ends.resource_manager}/.default")).token
    assert azure.counts["token"] == 1


async def test_a_managed_identity_gets_a_token(client, azure, monkeypatch):
    """The SDK uses IDENTITY_ENDPOINT. A wrong header is a 401."""
    ends = azure.endpoints
    monkeypatch.setenv("IDENTITY_ENDPOINT", ends.identity_endpoint)
    monkeypatch.setenv("IDENTITY_HEADER", ends.identity_header)
    async with ManagedIdentityCredential() as credential:
        token = (await credential.get_token(f"{ends.resource_manager}/.default")).token
    status, _, _ = await client.arm("/tenants?api-version=2022-12-01", headers={"Authorization": f"Bearer {token}"})
    assert status == 200
    async with client.session.get(ends.identity_endpoint, headers={"X-IDENTITY-HEADER": "wrong"}) as reply:
        assert reply.status == 401


async def test_discovery_names_the_token_endpoint(client, azure):
    """Instance discovery and the signing keys are served too."""
    ends = azure.endpoints
    async with client.session.get(f"{ends.authority}/{ends.tenant_id}/v2.0/.well-known/openid-configuration") as reply:
        assert (await reply.json())["token_endpoint"] == f"{ends.authority}/{ends.tenant_id}/oauth2/v2.0/token"
    async with client.session.get(f"{ends.authority}/common/discovery/instance?api-version=1.1") as reply:
        assert (await reply.json())["metadata"][0]["aliases"] == [ends.authority.removeprefix("https://")]
    async with client.session.get(f"{ends.authority}/{ends.tenant_id}/discovery/v2.0/keys") as reply:
        assert (await reply.json())["keys"][0]["kty"] == "RSA"
