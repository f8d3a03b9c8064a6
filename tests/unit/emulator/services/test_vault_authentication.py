"""The challenges of a vault, the checks of tokens, and the denials of its network."""

import base64
import json
import re

import aiohttp
import pytest

from keysync.emulator import VaultData
from keysync.emulator.challenge_data import ChallengeData
from tests.unit.emulator.conftest import OTHER_TENANT

PATH = "/secrets/many00?api-version=7.6"
NEW = "AKV10000: Request is missing a Bearer, PoP, or MTLS_POP token."
OLD = "AKV10000: Request is missing a Bearer or PoP token."
TENANT = "7e000000-0000-4000-8000-00000000007e"


async def challenge(client):
    """The header and the body of the reply to a request without a token."""
    async with client.session.get(client.azure.endpoints.vaults["kv-a"] + PATH) as reply:
        assert reply.status == 401
        return reply.headers["WWW-Authenticate"], await reply.text()


@pytest.mark.parametrize(
    ("settings", "authority", "resource", "message"),
    [
        ({"cloud": "public"}, "https://login.microsoftonline.com", "https://vault.azure.net", NEW),
        ({"cloud": "usgov"}, "https://login.microsoftonline.us", "https://vault.usgovcloudapi.net", OLD),
        ({"cloud": "china"}, "https://login.chinacloudapi.cn", "https://vault.azure.cn", OLD),
        (
            {"cloud": "public", "resource": "https://managedhsm.azure.net"},
            "https://login.microsoftonline.com",
            "https://managedhsm.azure.net",
            NEW,
        ),
        (
            {"cloud": "public", "authority": "https://login.windows.net"},
            "https://login.windows.net",
            "https://vault.azure.net",
            NEW,
        ),
    ],
)
async def test_a_vault_sends_the_challenge_of_a_cloud(client, azure, settings, authority, resource, message):
    """With that cloud's authority, resource and words."""
    azure.state.vault("kv-a").challenge = ChallengeData(**settings)
    header, body = await challenge(client)
    assert header == f'Bearer authorization="{authority}/{TENANT}", resource="{resource}"'
    assert json.loads(body)["error"] == {"code": "Unauthorized", "message": message}


async def test_a_challenge_can_have_unusual_spellings(client, azure):
    """A lowercase scheme, `authorization_uri`, and no body."""
    azure.state.vault("kv-a").challenge = ChallengeData(scheme="bearer", parameter="authorization_uri", body=False)
    header, body = await challenge(client)
    resource = azure.endpoints.vaults["kv-a"]
    assert header == f'bearer authorization_uri="{azure.endpoints.authority}/{TENANT}", resource="{resource}"'
    assert body == ""


async def test_the_audience_of_a_cloud_is_accepted(client, azure):
    """And that of Resource Manager is refused in the words of the service."""
    vault = azure.state.vault("kv-a")
    for audience, expected in [("https://vault.azure.cn", 401), ("https://vault.azure.net", 200)]:
        headers = {"Authorization": f"Bearer {await client.token(audience)}"}
        assert (await client.vault(PATH, headers=headers))[0] == expected
    vault.challenge = ChallengeData(cloud="china")
    headers = {"Authorization": f"Bearer {await client.token('https://vault.azure.cn')}"}
    assert (await client.vault(PATH, headers=headers))[0] == 200
    headers = {"Authorization": f"Bearer {await client.token('https://management.azure.com')}"}
    _, body, _ = await client.vault(PATH, headers=headers)
    message = "AKV10022: Invalid audience. Expected https://vault.azure.cn, found: https://management.azure.com."
    assert body["error"] == {"code": "Unauthorized", "message": message}


async def test_a_token_of_another_tenant_names_both_issuers(client, azure):
    """The expected ones include that of Microsoft's own services."""
    azure.state.vault("kv-a").tenant_id = OTHER_TENANT
    _, body, _ = await client.vault(PATH)
    issuer = "https://sts.windows.net/{}/"
    expected = ", ".join(issuer.format(tenant) for tenant in (OTHER_TENANT, "f8cdef31-a31e-4b4a-93e4-5f571e91255a"))
    assert body["error"]["message"] == (
        f"AKV10032: Invalid issuer. Expected one of {expected}, found {issuer.format(TENANT)}."
    )


async def test_expired_and_forged_tokens_have_their_own_messages(client, clock):
    """Those of the service."""
    token = await client.token("https://vault.azure.net")
    for sent, seconds, message in [
        (token[:-8] + "AAAAAAAA", 0, "AKV10046: Unable to resolve the key used for signature validation."),
        (token, 4_000, "Error validating token: IDX10223"),
    ]:
        clock.now += seconds
        status, body, _ = await client.vault(PATH, headers={"Authorization": f"Bearer {sent}"})
        assert (status, body["error"]["message"]) == (401, message)


async def test_a_vault_can_ask_for_other_claims_after_tokens_worked(client, azure, clock):
    """As continuous access evaluation does. Another token is accepted."""
    vault = azure.state.vault("kv-a")
    assert (await client.secrets.get_secret("many00")).value == "v0"
    old = {"Authorization": f"Bearer {await client.token(azure.endpoints.vaults['kv-a'])}"}
    assert (await client.vault(PATH, headers=old))[0] == 200
    vault.refuse_known_tokens()
    status, body, headers = await client.vault(PATH, headers=old)
    assert (status, body["error"]) == (401, {"code": "Unauthorized", "message": "AKV10000"})
    form = re.fullmatch(
        r'Bearer realm="", authorization_uri="(?P<uri>[^"]+)", error="insufficient_claims", claims="(?P<claims>[^"]+)"',
        headers["WWW-Authenticate"],
    )
    assert form["uri"] == f"{azure.endpoints.authority}/common/oauth2/authorize"
    claims = json.loads(base64.b64decode(form["claims"]))
    assert claims == {"access_token": {"nbf": {"essential": True, "value": str(int(clock.now))}}}
    ends = azure.endpoints
    fields = {"grant_type": "client_credentials", "client_id": ends.client_id, "client_secret": ends.client_secret}
    fields["scope"] = f"{ends.vaults['kv-a']}/.default"
    async with client.session.post(f"{ends.authority}/{ends.tenant_id}/oauth2/v2.0/token", data=fields) as reply:
        new = {"Authorization": f"Bearer {(await reply.json())['access_token']}"}
    assert (await client.vault(PATH, headers=new))[0] == 200
    assert (await client.vault(PATH, headers=old))[0] == 401


@pytest.mark.parametrize(
    ("network", "inner", "first_line"),
    [
        ("firewall", "ForbiddenByFirewall", "Client address is not authorized and caller is not a trusted service."),
        (
            "private",
            "ForbiddenByConnection",
            "Public network access is disabled and request is not from a trusted service nor via an approved private link.",
        ),
    ],
)
async def test_a_closed_network_refuses_a_caller_with_a_token(client, azure, network, inner, first_line):
    """A caller without a token still gets the challenge."""
    azure.state.vault("kv-a").network = network
    status, body, _ = await client.vault(PATH)
    assert (status, body["error"]["code"], body["error"]["innererror"]["code"]) == (403, "Forbidden", inner)
    lines = body["error"]["message"].split("\r\n")
    assert (lines[0], lines[-1]) == (first_line, "Vault: kv-a;location=westeurope")
    assert lines[-2].startswith("Caller: appid=c1000000-")
    assert ("Client address: 127.0.0.1" in lines or "Client address: ::1" in lines) is (network == "firewall")
    assert (await challenge(client))[0].startswith("Bearer ")


async def test_resource_manager_shows_the_network_of_a_vault(client, azure):
    """And whether a deletion can be undone."""
    vault = azure.state.vault("kv-a")
    path = f"{vault.id}?api-version=2023-07-01"
    for network, public, action in [
        ("open", "Enabled", None),
        ("firewall", "Enabled", "Deny"),
        ("private", "Disabled", None),
    ]:
        vault.network = network
        _, body, _ = await client.arm(path)
        shown = body["properties"]
        assert (shown["publicNetworkAccess"], shown.get("networkAcls", {}).get("defaultAction")) == (public, action)
    vault.soft_delete, vault.retention_days = False, 30
    _, body, _ = await client.arm(path)
    assert (body["properties"]["enableSoftDelete"], body["properties"]["softDeleteRetentionInDays"]) == (False, 30)


async def test_every_reply_has_the_headers_of_key_vault(client, azure):
    """Also a challenge and a refusal."""
    for path in (PATH, "/secrets/none?api-version=7.6", "/unknown"):
        _, _, headers = await client.vault(path)
        assert headers["x-ms-keyvault-region"] == "westeurope"
        assert re.fullmatch(r"conn_type=Ipv[46];addr=[0-9.:]+;act_addr_fam=\w+;", headers["x-ms-keyvault-network-info"])
        assert (headers["Pragma"], headers["Expires"], headers["X-Content-Type-Options"]) == (
            "no-cache",
            "-1",
            "nosniff",
        )


async def test_settings_of_a_vault_can_be_changed_while_it_runs(client, azure, clock):
    """At the control address. An unknown field, value or vault is an error."""
    url = azure.endpoints.control

    async def change(name, body, method="PATCH", path=""):
        sent = {} if body is None else {"json": body}
        async with aiohttp.request(method, f"{url}/vaults/{name}{path}", **sent) as reply:
            return reply.status, await reply.text()

    assert (await change("kv-a", {"clock_offset": 600, "read_only": True}))[0] == 204
    status, body, headers = await client.vault("/secrets/new?api-version=7.6", "PUT", json={"value": "x"})
    assert (status, headers["Date"]) == (503, "Fri, 15 Jan 2027 08:10:00 GMT")
    assert (
        await change("kv-a", {"read_only": False, "challenge": {"cloud": "china"}, "policy": {"expiry_required": True}})
    )[0] == 204
    assert "https://vault.azure.cn" in (await challenge(client))[0]
    _, body, _ = await client.vault("/secrets/new?api-version=7.6", "PUT", json={"value": "x"})
    assert "expiration date" in body["error"]["message"]
    assert azure.state.vault("kv-a").clock_offset == 600
    assert "there is no field 'clock'" in (await change("kv-a", {"clock": 1}))[1]
    assert (await change("kv-a", {"retention_days": 6}))[0] == 400
    assert (await change("kv-none", {"read_only": True}))[0] == 404
    await client.vault(PATH)
    assert (await change("kv-a", None, "DELETE", "/tokens"))[0] == 204
    assert (await client.vault(PATH))[0] == 401


def test_deletions_and_recoveries_take_seconds_by_default():
    """As in Azure."""
    assert (VaultData(name="kv-a").delete_delay, VaultData(name="kv-a").recover_delay) == (10, 10)
