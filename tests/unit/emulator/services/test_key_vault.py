"""Key Vault, with the real SDK and with plain requests."""

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError

from keysync.emulator import Emulator
from keysync.emulator.throttle import VAULT_CREATES
from tests.unit.emulator.conftest import connect, sample

V = "?api-version=7.6"


async def test_set_get_update_and_versions(client, azure, clock):
    """A set adds a version that inherits nothing. An update changes only the fields that it names."""
    first = await client.secrets.set_secret("Name", "one", tags={"a": "1"}, content_type="text/plain")
    clock.now += 10.7
    second = await client.secrets.set_secret("NAME", "two", tags={"b": "2"})
    assert second.id.startswith(f"{azure.endpoints.vaults['kv-a']}/secrets/Name/")
    latest = await client.secrets.get_secret("name")
    assert (latest.value, latest.properties.tags, latest.properties.content_type) == ("two", {"b": "2"}, None)
    assert (await client.secrets.get_secret("name", first.properties.version)).value == "one"
    await client.secrets.update_secret_properties("name", second.properties.version, enabled=False)
    versions = azure.state.vault("kv-a").versions("name")
    assert [(version.value, version.enabled) for version in versions] == [("one", True), ("two", False)]
    assert versions[1].tags == {"b": "2"}
    assert versions[1].updated - versions[0].created == 10
    listed = [entry.version async for entry in client.secrets.list_properties_of_secret_versions("name")]
    assert sorted(listed) == sorted(version.version for version in versions)
    assert azure.counts["setSecret"] == 2
    assert azure.counts["challenge"] == 1


async def test_lists_have_25_secrets_per_page(client, azure):
    """Lists have no values, and `maxresults` is at most 25."""
    names = [secret.name async for secret in client.secrets.list_properties_of_secrets()]
    assert len(names) == len(set(names)) == 62
    assert azure.counts["listSecrets"] == 3
    status, body, _ = await client.vault(f"/secrets{V}&maxresults=26")
    assert (status, body["error"]["code"]) == (400, "BadParameter")
    assert "value" not in (await client.vault(f"/secrets{V}"))[1]["value"][0]


async def test_a_list_is_stable(client):
    """A secret that is added between two pages neither repeats nor hides another."""
    pages = client.secrets.list_properties_of_secrets().by_page()
    names = [secret.name async for secret in await anext(pages)]
    await client.secrets.set_secret("aaa", "x")
    async for page in pages:
        names += [secret.name async for secret in page]
    assert len(names) == len(set(names)) == 62


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "inner"),
    [
        ("GET", "/secrets/none", None, 404, "SecretNotFound", None),
        ("GET", "/secrets/many00/0123", None, 404, "SecretNotFound", None),
        ("GET", "/secrets/disabled", None, 403, "Forbidden", "SecretDisabled"),
        ("GET", "/secrets/a%2Fb", None, 400, "BadParameter", None),
        ("PUT", "/secrets/under_score", {"value": "x"}, 400, "BadParameter", None),
        ("PUT", "/secrets/" + "n" * 128, {"value": "x"}, 400, "BadParameter", None),
        ("PUT", "/secrets/big", {"value": "x" * 25_601}, 400, "BadParameter", None),
        ("PUT", "/secrets/null", {}, 400, "BadParameter", None),
        ("PUT", "/secrets/tags", {"value": "x", "tags": {str(n): "" for n in range(16)}}, 400, "BadParameter", None),
        ("PUT", "/secrets/tags", {"value": "x", "tags": {"t": "x" * 257}}, 400, "BadParameter", None),
        ("PUT", "/secrets/kind", {"value": "x", "contentType": "x" * 256}, 400, "BadParameter", None),
        ("PUT", "/secrets/gone", {"value": "x"}, 409, "Conflict", "ObjectIsDeletedButRecoverable"),
        ("PUT", "/secrets/cert", {"value": "x"}, 403, "Forbidden", "SecretManagedByKeyVault"),
        ("GET", "/deletedsecrets/many00", None, 404, "SecretNotFound", None),
        ("POST", "/secrets", None, 404, "NotFound", None),
    ],
)
async def test_errors_have_the_codes_of_key_vault(client, method, path, body, status, code, inner):
    """And its inner codes."""
    actual, reply, _ = await client.vault(f"{path}{V}", method, json=body)
    assert (actual, reply["error"]["code"], reply["error"].get("innererror", {}).get("code")) == (status, code, inner)


async def test_the_largest_secret_is_accepted(client):
    """A name of 127 characters, a value of 25 KB and 15 tags."""
    body = {"value": "x" * 25_600, "tags": {str(n): "x" * 256 for n in range(15)}}
    assert (await client.vault(f"/SECRETS/{'n' * 127}{V}", "PUT", json=body))[0] == 200


async def test_the_challenge_names_the_tenant_and_the_vault(client, azure):
    """For no token, and for a token of another tenant."""
    for name, headers in [
        ("kv-a", {}),
        ("kv-b", {"Authorization": f"Bearer {await client.token('https://vault.azure.net')}"}),
    ]:
        url = azure.endpoints.vaults[name]
        async with client.session.get(f"{url}/secrets{V}", headers=headers) as reply:
            assert reply.status == 401
            tenant = azure.state.vault(name).tenant_id
            expected = (
                f'Bearer authorization="{azure.endpoints.authority}/{tenant}", resource="{url.replace("127.", "")}"'
            )
            assert reply.headers["WWW-Authenticate"] == expected
    assert azure.counts["challenge"] == 1


async def test_deletion_and_recovery_take_time(client, azure, clock):
    """They are visible after a delay. Until then, a set of the name is a conflict."""
    path = f"/deletedsecrets/many00{V}"
    assert (await client.vault(f"/secrets/many00{V}", "DELETE"))[0] == 200
    assert (await client.vault(path))[0] == 404
    _, conflict, _ = await client.vault(f"/secrets/many00{V}", "PUT", json={"value": "x"})
    assert conflict["error"]["innererror"]["code"] == "ObjectIsBeingDeleted"
    clock.now += 5
    assert (await client.vault(path))[1]["recoveryId"].endswith("/deletedsecrets/many00")
    assert len([secret async for secret in client.secrets.list_deleted_secrets()]) == 2
    assert (await client.vault(f"/deletedsecrets/many00/recover{V}", "POST"))[0] == 200
    with pytest.raises(ResourceNotFoundError):
        await client.secrets.get_secret("many00")
    with pytest.raises(ResourceExistsError) as caught:
        await client.secrets.set_secret("many00", "x")
    assert "being recovered" in str(caught.value)
    clock.now += 5
    assert (await client.secrets.get_secret("many00")).value == "v0"
    await client.secrets.purge_deleted_secret("gone")
    assert (await client.secrets.set_secret("gone", "new")).value == "new"
    assert {"deleteSecret", "recoverSecret", "purgeSecret", "getDeletedSecret"} <= set(azure.counts)


async def test_a_missing_role_names_the_action(client):
    """Forbidden, with the inner code of a missing role."""
    with pytest.raises(HttpResponseError) as caught:
        await client.other.get_secret("x")
    assert caught.value.error.innererror["code"] == "ForbiddenByRbac"
    assert "Microsoft.KeyVault/vaults/secrets/getSecret/action" in str(caught.value)


async def test_creates_are_throttled_as_documented(clock):
    """300 creates succeed at once, the next is 429 with Retry-After. Reads still succeed."""
    async with Emulator(sample(), clock=clock, limits=True) as azure, connect(azure) as client:
        path = f"/secrets/x{V}"
        for _ in range(int(VAULT_CREATES.burst)):
            assert (await client.vault(path, "PUT", json={"value": "x"}))[0] == 200
        status, body, headers = await client.vault(path, "PUT", json={"value": "x"})
        assert (status, body["error"]["code"], headers["Retry-After"]) == (429, "Throttled", "1")
        assert (await client.vault(path))[0] == 200
