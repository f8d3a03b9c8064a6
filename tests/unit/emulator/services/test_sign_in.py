"""Sign-in of several identities: secrets, certificates, federated assertions, managed identities and users."""

import asyncio
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity import DeviceCodeCredential
from azure.identity.aio import CertificateCredential, ClientAssertionCredential, ManagedIdentityCredential
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from keysync.emulator import Emulator, EmulatorData, VaultData
from keysync.emulator.identity_data import FederatedData, IdentityData
from tests.unit.emulator.conftest import Clock, connect

NOW = 1_800_000_000
VAULT_SCOPE = "https://vault.azure.net/.default"
SUBJECT = "system:serviceaccount:render:keysync"


def certificate(days):
    """A certificate that is valid until `days` after now by the emulator's clock: its PEM, and PEM with the key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "keysync")])
    now = datetime.fromtimestamp(NOW, UTC)
    begin, end = now - timedelta(days=900), now + timedelta(days=days)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = builder.serial_number(1).not_valid_before(begin).not_valid_after(end).sign(key, hashes.SHA256())
    pem = built.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode(), private + pem


def thumbprint(pem):
    """What the SDK names a certificate by."""
    return x509.load_pem_x509_certificate(pem.encode()).fingerprint(hashes.SHA256())


VALID, EXPIRED, OTHER = certificate(30), certificate(-1), certificate(30)


@pytest.fixture
async def azure():
    identities = [
        IdentityData(name="secret", client_secret="right", client_secret_expires=NOW + 60),
        IdentityData(name="certificate", certificates=[VALID[0], EXPIRED[0]]),
        IdentityData(name="federated", federated=[FederatedData(issuer="https://oidc.example/", subject=SUBJECT)]),
        IdentityData(name="elsewhere", tenant_id="7e000000-0000-4000-8000-0000000000ee"),
        IdentityData(name="managed", type="managed_identity"),
        IdentityData(name="Ann Example", type="user"),
        IdentityData(name="bob@example.com", type="user"),
    ]
    data = EmulatorData(identities=identities, vaults=[VaultData(name=name) for name in ("kv-a", "kv-denied")])
    async with Emulator(data, clock=Clock()) as running:
        yield running


def wire(client):
    transport = AioHttpTransport(session=client.session, session_owner=False)
    ends = client.azure.endpoints
    return {"authority": ends.authority, "disable_instance_discovery": True, "transport": transport}


async def form(client, path, tenant=None, **fields):
    ends = client.azure.endpoints
    async with client.session.post(f"{ends.authority}/{tenant or ends.tenant_id}/oauth2/{path}", data=fields) as reply:
        return reply.status, await reply.json()


def application(client, name, **fields):
    found = client.azure.endpoints.identities[name]
    secret = {"client_secret": found["client_secret"]} if "client_secret" in found else {}
    return {
        "grant_type": "client_credentials",
        "client_id": found["client_id"],
        "scope": VAULT_SCOPE,
        **secret,
        **fields,
    }


@pytest.mark.parametrize(
    "scope",
    [
        "openid profile offline_access https://vault.azure.net/.default",
        "https://vault.azure.net/.default openid",
        "https://management.core.windows.net//.default",
        "https://localhost:1/.default",
    ],
)
async def test_the_order_of_scopes_has_no_meaning(client, scope):
    """Java's client sends those of OpenID first. The audience is the resource alone."""
    status, body = await form(client, "v2.0/token", **application(client, "secret", scope=scope))
    assert status == 200
    audience = jwt.decode(body["access_token"], options={"verify_signature": False})["aud"]
    resource = next(each for each in scope.split() if each.endswith("/.default"))
    assert audience == resource.removesuffix("/.default")


@pytest.mark.parametrize(
    ("scope", "error", "number", "text"),
    [
        ("openid profile", "invalid_request", 90014, "The required field 'scope' is missing"),
        ("https://vault.azure.net/user_impersonation", "invalid_scope", 1002012, "scope https://vault.azure.net/user_impersonation is not valid. Client credential flows must have a scope value with /.default"),
        ("https://vault.azure.net/.default https://management.azure.com/.default", "invalid_scope", 28000, "it contains more than one resource"),
        ("https://example.org/.default", "invalid_resource", 500011, "The resource principal named https://example.org was not found in the tenant"),
    ],
)  # fmt: skip
async def test_a_scope_that_entra_refuses(client, scope, error, number, text):
    """In its words."""
    status, body = await form(client, "v2.0/token", **application(client, "secret", scope=scope))
    assert (status, body["error"], body["error_codes"]) == (400, error, [number])
    assert text in body["error_description"]


@pytest.mark.parametrize("missing", ["grant_type", "client_id"])
async def test_a_missing_parameter_is_named(client, missing):
    """A body that is not form-encoded has none of them."""
    fields = {name: value for name, value in application(client, "secret").items() if name != missing}
    status, body = await form(client, "v2.0/token", **fields)
    assert (status, body["error_codes"]) == (400, [900144])
    assert f"must contain the following parameter: '{missing}'." in body["error_description"]


async def test_a_secret_expires(client, azure):
    """The message names the application."""
    found = azure.endpoints.identities["secret"]
    assert (await form(client, "v2.0/token", **application(client, "secret")))[0] == 200
    azure.state.clock.now += 60
    status, body = await form(client, "v2.0/token", **application(client, "secret"))
    assert (status, body["error"], body["error_codes"]) == (401, "invalid_client", [7000222])
    assert f"secret keys for app '{found['client_id']}' are expired." in body["error_description"]


async def test_an_application_is_unknown_in_other_tenants(client):
    """If it names a tenant."""
    status, body = await form(client, "v2.0/token", **application(client, "elsewhere"))
    assert (status, body["error_codes"]) == (400, [700016])
    tenant = "7e000000-0000-4000-8000-0000000000ee"
    assert (await form(client, "v2.0/token", tenant, **application(client, "elsewhere")))[0] == 200


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (VALID, None),
        (EXPIRED, "is expired on application. [Reason - The key used is expired., Thumbprint of key used by client: '"),
        (
            OTHER,
            "is not registered on application. [Reason - The key was not found., Thumbprint of key used by client: '",
        ),
    ],
    ids=["valid", "expired", "unknown"],
)
async def test_a_certificate_must_be_registered_and_valid(client, azure, chosen, message, monkeypatch):
    """The SDK signs the assertion; its times are those of the emulator."""
    monkeypatch.setattr("msal.oauth2cli.assertion.time.time", lambda: NOW)
    ends = azure.endpoints
    credential = CertificateCredential(
        ends.tenant_id, ends.identities["certificate"]["client_id"], certificate_data=chosen[1], **wire(client)
    )
    if message is None:
        assert (await credential.get_token(VAULT_SCOPE)).token
        return
    with pytest.raises(ClientAuthenticationError, match="AADSTS700027") as failed:
        await credential.get_token(VAULT_SCOPE)
    assert message in str(failed.value)
    assert thumbprint(chosen[0]).hex().upper() in str(failed.value)


async def test_an_assertion_with_another_key_is_refused(client, azure, monkeypatch):
    """Its header names a registered certificate."""
    monkeypatch.setattr("msal.oauth2cli.assertion.time.time", lambda: NOW)
    client_id = azure.endpoints.identities["certificate"]["client_id"]
    encoded = jwt.utils.base64url_encode(thumbprint(VALID[0])).decode()
    forged = jwt.encode({"exp": NOW + 60}, OTHER[1], algorithm="RS256", headers={"x5t#S256": encoded})
    fields = {
        "grant_type": "client_credentials",
        "client_id": client_id,
        "scope": VAULT_SCOPE,
        "client_assertion": forged,
    }
    status, body = await form(client, "v2.0/token", **fields)
    assert (status, body["error_codes"]) == (401, [700027])
    assert "Client assertion failed signature validation." in body["error_description"]
    status, body = await form(client, "v2.0/token", **{**fields, "client_assertion": "no token"})
    assert (status, body["error_codes"]) == (400, [50027])


@pytest.mark.parametrize(
    ("changed", "number", "text"),
    [
        ({}, None, ""),
        ({"iss": "https://other.example/"}, 700211, "presented assertion issuer 'https://other.example/'"),
        ({"sub": SUBJECT.upper()}, 700213, f"presented assertion subject '{SUBJECT.upper()}'"),
        ({"aud": "x"}, 700212, "presented assertion audience 'x'"),
        ({"exp": NOW}, 700024, "Current time: 2027-01-15T08:00:00.0000000Z"),
    ],
    ids=["good", "issuer", "subject", "audience", "expired"],
)
async def test_a_federated_assertion_must_match(client, azure, changed, number, text):
    """Issuer, subject and audience, with case."""
    claims = {
        "iss": "https://oidc.example/",
        "sub": SUBJECT,
        "aud": "api://AzureADTokenExchange",
        "exp": NOW + 60,
        **changed,
    }
    assertion = jwt.encode(claims, "a-key-that-the-emulator-does-not-check", algorithm="HS256")
    ends = azure.endpoints
    credential = ClientAssertionCredential(
        ends.tenant_id, ends.identities["federated"]["client_id"], lambda: assertion, **wire(client)
    )
    if number is None:
        assert (await credential.get_token(VAULT_SCOPE)).token
        return
    with pytest.raises(ClientAuthenticationError, match=f"AADSTS{number}") as failed:
        await credential.get_token(VAULT_SCOPE)
    assert text in str(failed.value)


async def test_a_managed_identity_is_found_by_its_client_id(client, azure, monkeypatch):
    """Without one the first managed identity signs in."""
    ends = azure.endpoints
    monkeypatch.setenv("IDENTITY_ENDPOINT", ends.identity_endpoint)
    monkeypatch.setenv("IDENTITY_HEADER", ends.identity_header)
    managed = ends.identities["managed"]
    for client_id in (None, managed["client_id"]):
        async with ManagedIdentityCredential(client_id=client_id) as credential:
            token = (await credential.get_token(VAULT_SCOPE)).token
        assert jwt.decode(token, options={"verify_signature": False})["oid"] == managed["object_id"]
    async with ManagedIdentityCredential(client_id=ends.identities["secret"]["client_id"]) as credential:
        with pytest.raises(ClientAuthenticationError, match="No User Assigned or Delegated Managed Identity"):
            await credential.get_token(VAULT_SCOPE)


async def test_a_user_signs_in_with_a_device_code(azure):
    """The emulator confirms it at once."""
    ends, prompts = azure.endpoints, []
    options = {"authority": ends.authority, "disable_instance_discovery": True, "connection_verify": ends.ca_bundle}

    def sign_in():
        asked = DeviceCodeCredential(
            tenant_id=ends.tenant_id, prompt_callback=lambda *prompt: prompts.append(prompt), **options
        )
        with asked as credential:
            return credential.get_token("https://graph.microsoft.com/.default").token

    claims = jwt.decode(await asyncio.to_thread(sign_in), options={"verify_signature": False})
    assert (claims["oid"], claims["upn"]) == (
        ends.identities["Ann Example"]["object_id"],
        "ann.example@keysync.localhost",
    )
    assert prompts[0][0] == f"{ends.authority}/common/oauth2/deviceauth"


async def test_a_code_is_redeemed_once(client, azure):
    """As in Entra, which refuses the second use of a code; two codes for the same user differ."""
    token = f"{azure.endpoints.authority}/common/oauth2/v2.0/token"
    codes = []
    for _ in range(2):
        async with client.session.post(f"{azure.endpoints.authority}/common/oauth2/v2.0/devicecode", data={}) as reply:
            codes.append((await reply.json())["device_code"])
    answers = []
    for code in (codes[0], codes[0], codes[1]):
        fields = {
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "device_code": code,
            "scope": VAULT_SCOPE,
        }
        async with client.session.post(token, data=fields) as reply:
            answers.append((reply.status, (await reply.json()).get("error_codes")))
    assert answers == [(200, None), (400, [54005]), (200, None)]


async def test_a_user_signs_in_with_a_browser(client, azure):
    """The hint selects the user. The code returns to this machine only, and a refresh token gets tokens for other resources."""
    ends = azure.endpoints
    query = {
        "client_id": "c",
        "response_type": "code",
        "redirect_uri": "http://localhost:1234/back",
        "scope": "https://management.core.windows.net//.default offline_access",
        "state": "s",
        "login_hint": "BOB@example.com",
        "nonce": "n",
    }
    url = f"{ends.authority}/organizations/oauth2/v2.0/authorize"
    async with client.session.get(url, params=query, allow_redirects=False) as reply:
        assert reply.status == 302
        location = reply.headers["Location"]
    assert location.startswith("http://localhost:1234/back?code=")
    assert location.endswith("&state=s")
    code = location.partition("code=")[2].partition("&")[0]
    status, body = await form(
        client, "v2.0/token", "organizations", grant_type="authorization_code", code=code, client_id="c"
    )
    assert status == 200
    claims = jwt.decode(body["id_token"], options={"verify_signature": False})
    assert (claims["preferred_username"], claims["nonce"], claims["aud"]) == ("bob@example.com", "n", "c")
    fields = {
        "grant_type": "refresh_token",
        "refresh_token": body["refresh_token"],
        "client_id": "c",
        "scope": VAULT_SCOPE,
    }
    status, body = await form(client, "v2.0/token", **fields)
    assert jwt.decode(body["access_token"], options={"verify_signature": False})["aud"] == "https://vault.azure.net"
    status, body = await form(client, "v2.0/token", **{**fields, "refresh_token": code})
    assert (status, body["error"], body["error_codes"]) == (400, "invalid_grant", [70000])
    async with client.session.get(url, params={**query, "redirect_uri": "https://example.org/"}) as reply:
        assert (reply.status, (await reply.json())["error_codes"]) == (400, [50011])


@pytest.mark.parametrize(
    ("lifetime", "configured", "expected"), [(3600, None, None), (86_400, None, 43_200), (3600, 60, 60)]
)
async def test_a_long_token_says_when_to_refresh_it(lifetime, configured, expected):
    """Half of the lifetime from two hours on, or what the data says."""
    data = EmulatorData(
        token_lifetime=lifetime, refresh_in=configured, vaults=[VaultData(name=name) for name in ("kv-a", "kv-denied")]
    )
    async with Emulator(data) as azure, connect(azure) as client:
        status, body = await form(client, "v2.0/token", **application(client, "keysync"))
    assert (status, body["expires_in"], body.get("refresh_in")) == (200, lifetime, expected)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_an_instance_is_known_by_each_of_its_names(client, azure, host):
    """MSAL asks with the address of the authority; another host is unknown."""
    ends = azure.endpoints
    base = ends.authority.replace("localhost", host)
    query = {"api-version": "1.1", "authorization_endpoint": f"{base}/{ends.tenant_id}/oauth2/v2.0/authorize"}
    url = f"{ends.authority}/common/discovery/instance"
    async with client.session.get(url, params=query) as reply:
        body = await reply.json()
    assert body["tenant_discovery_endpoint"] == f"{base}/{ends.tenant_id}/v2.0/.well-known/openid-configuration"
    assert {"localhost", "127.0.0.1"} <= {alias.partition(":")[0] for alias in body["metadata"][0]["aliases"]}
    for unknown in ("https://login.example/common/oauth2/v2.0/authorize", "https://[", "https://localhost:x/"):
        async with client.session.get(url, params={**query, "authorization_endpoint": unknown}) as reply:
            body = await reply.json()
        assert (reply.status, body["error"], body["error_codes"]) == (400, "invalid_instance", [50049])


async def test_a_redirect_to_no_url_is_refused(client, azure):
    """As one to another machine."""
    url = f"{azure.endpoints.authority}/{azure.endpoints.tenant_id}/oauth2/v2.0/authorize"
    for redirect in ("http://[", "http://localhost:x", "https://login.example"):
        async with client.session.get(url, params={"response_type": "code", "redirect_uri": redirect}) as reply:
            assert (reply.status, (await reply.json())["error_codes"]) == (400, [50011])
