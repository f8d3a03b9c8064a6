"""Microsoft Graph: the directory as `az ad` and `az role assignment` read it."""

import pytest

from keysync.emulator import Emulator, EmulatorData, VaultData
from keysync.emulator.identity_data import IdentityData
from tests.unit.emulator.conftest import Clock


@pytest.fixture
async def azure():
    identities = [
        IdentityData(name="reader", unrestricted=True),
        IdentityData(name="sync"),
        IdentityData(name="managed", type="managed_identity"),
        IdentityData(name="O'Hara", type="user"),
    ]
    data = EmulatorData(identities=identities, vaults=[VaultData(name=name) for name in ("kv-a", "kv-denied")])
    async with Emulator(data, clock=Clock()) as running:
        yield running


async def ask(client, path, caller="user", method="GET", resource="https://graph.microsoft.com", **more):
    """A request of the user, or of an application by its name."""
    ends = client.azure.endpoints
    if caller == "user":
        async with client.session.post(f"{ends.authority}/common/oauth2/v2.0/devicecode", data={}) as reply:
            code = (await reply.json())["device_code"]
        fields = {
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "device_code": code,
            "scope": f"{resource}/.default",
        }
    else:
        found = ends.identities[caller]
        fields = {name: found[name] for name in ("client_id", "client_secret")}
        fields |= {"grant_type": "client_credentials", "scope": f"{resource}/.default"}
    async with client.session.post(f"{ends.authority}/{ends.tenant_id}/oauth2/v2.0/token", data=fields) as reply:
        token = (await reply.json())["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    async with client.session.request(method, f"{ends.authority}/v1.0{path}", headers=headers, **more) as reply:
        return reply.status, await reply.json()


async def test_the_signed_in_user(client, azure):
    """An application has no /me."""
    ends = azure.endpoints
    status, body = await ask(client, "/me", resource=ends.authority)
    assert (status, body["id"], body["displayName"]) == (200, ends.identities["O'Hara"]["object_id"], "O'Hara")
    status, body = await ask(client, "/me", "reader")
    assert (status, body["error"]["code"]) == (400, "BadRequest")
    assert body["error"]["message"] == "/me request is only valid with delegated authentication flow."


async def test_an_assignee_is_found_in_each_way_of_az(client, azure):
    """By sign-in name, client id and object id."""
    ids = {name: found["object_id"] for name, found in azure.endpoints.identities.items()}
    client_id = azure.endpoints.identities["sync"]["client_id"]
    for path, expected in {
        "/users?$filter=userPrincipalName eq 'o''hara@keysync.localhost'": [ids["O'Hara"]],
        "/users?$filter=userPrincipalName eq 'x@y'": [],
        f"/servicePrincipals?$filter=servicePrincipalNames/any(c:c eq '{client_id}')": [ids["sync"]],
        "/servicePrincipals?$filter=startswith(displayName,'M')": [ids["managed"]],
        "/servicePrincipals": [ids["reader"], ids["sync"], ids["managed"]],
    }.items():
        status, body = await ask(client, path)
        assert (status, [each["id"] for each in body["value"]]) == (200, expected)
    wanted = {"ids": list(ids.values()), "types": ["user", "group", "servicePrincipal"]}
    _, body = await ask(client, "/directoryObjects/getByIds", method="POST", json=wanted)
    found = {each["id"]: each["@odata.type"] for each in body["value"]}
    assert found[ids["O'Hara"]] == "#microsoft.graph.user"
    assert found[ids["managed"]] == "#microsoft.graph.servicePrincipal"
    assert (await ask(client, f"/servicePrincipals/{ids['sync']}"))[1]["appId"] == client_id


async def test_refusals(client, azure):
    """An application may not read the directory unless it may do everything."""
    wrong = {"resource": "https://vault.azure.net"}
    for call, expected in [
        (ask(client, "/servicePrincipals", "sync"), (403, "Authorization_RequestDenied")),
        (ask(client, "/servicePrincipals", "reader"), (200, None)),
        (ask(client, "/users/nobody"), (404, "Request_ResourceNotFound")),
        (ask(client, "/users?$filter=age gt 3"), (400, "Request_UnsupportedQuery")),
        (ask(client, "/planets"), (400, "BadRequest")),
        (ask(client, "/me", **wrong), (401, "InvalidAuthenticationToken")),
    ]:
        status, body = await call
        assert (status, body.get("error", {}).get("code")) == expected
    async with client.session.get(f"{azure.endpoints.authority}/v1.0/me") as reply:
        assert (reply.status, (await reply.json())["error"]["message"]) == (401, "Access token is empty.")
