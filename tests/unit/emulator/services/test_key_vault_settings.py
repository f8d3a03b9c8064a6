"""Policies, read-only vaults, and operations on disabled and recovering secrets."""

import pytest

from keysync.emulator import Fault, PolicyData

V = "?api-version=7.6"
DAY = 86_400


def error_of(reply):
    status, body, _ = reply
    error = body.get("error", {}) if isinstance(body, dict) else {}
    return status, error.get("innererror", {}).get("code"), error.get("message", "")


@pytest.mark.parametrize(
    ("policy", "denied", "allowed", "message_part"),
    [
        ({"content_type_required": True}, {}, {"contentType": "text/plain"}, "content type"),
        ({"expiry_required": True}, {}, {"exp": 1}, "expiration date"),
        ({"max_validity_days": 30}, {"exp": 31}, {"exp": 30}, "maximum validity"),
        ({"max_validity_days": 30}, {"nbf": 1, "exp": 32}, {"nbf": 1, "exp": 31}, "maximum validity"),
        ({"max_validity_days": 30}, {"exp": 31}, {}, "maximum validity"),
    ],
)
async def test_a_policy_denies_secrets_that_violate_it(client, azure, clock, policy, denied, allowed, message_part):
    """A denied set or update is Forbidden and changes nothing."""

    def body(fields):
        times = {key: int(clock.now + days * DAY) for key, days in fields.items() if key != "contentType"}
        return {"attributes": times, **({"contentType": fields["contentType"]} if "contentType" in fields else {})}

    vault = azure.state.vault("kv-a")
    await client.vault(f"/secrets/before{V}", "PUT", json={"value": "x"})
    vault.policy = PolicyData(**policy)
    for path, method, content in [
        ("/secrets/new", "PUT", {"value": "x", **body(denied)}),
        ("/secrets/before", "PATCH", {"tags": {"a": "b"}, **body(denied)}),
    ]:
        status, inner, message = error_of(await client.vault(f"{path}{V}", method, json=content))
        assert (status, inner) == (403, "ForbiddenByPolicy")
        assert message_part in message
    assert vault.versions("new") == []
    assert vault.versions("before")[0].tags == {}
    for path, method in [("/secrets/new", "PUT"), ("/secrets/before", "PATCH")]:
        content = {"value": "x", "tags": {"a": "b"}, **body(allowed)}
        assert (await client.vault(f"{path}{V}", method, json=content))[0] == 200
    assert vault.versions("before")[0].tags == {"a": "b"}


async def test_a_policy_checks_the_secret_after_an_update(client, azure):
    """An update need not repeat a property that the secret already has."""
    azure.state.vault("kv-a").policy = PolicyData(content_type_required=True)
    assert (await client.vault(f"/secrets/new{V}", "PUT", json={"value": "x", "contentType": "t"}))[0] == 200
    assert (await client.vault(f"/secrets/new{V}", "PATCH", json={"tags": {"a": "b"}}))[0] == 200


async def test_a_vault_after_a_failover_is_read_only(client, azure):
    """Reads and lists succeed. Each write is a 503 with the reason."""
    vault = azure.state.vault("kv-a")
    vault.read_only = True
    assert (await client.vault(f"/secrets/many00{V}"))[0] == 200
    assert (await client.vault(f"/secrets{V}"))[0] == 200
    for method, path, name in [
        ("PUT", "/secrets/many00", "SecretSet"),
        ("PATCH", "/secrets/many00", "SecretUpdate"),
        ("DELETE", "/secrets/many00", "SecretDelete"),
        ("POST", "/deletedsecrets/gone/recover", "SecretRecover"),
        ("DELETE", "/deletedsecrets/gone", "SecretPurge"),
    ]:
        status, body, _ = await client.vault(f"{path}{V}", method, json={"value": "x"})
        assert (status, body["error"]["code"]) == (503, "ServiceUnavailable")
        assert body["error"]["message"] == (
            f'Operation "{name}" is unavailable: the service is currently in a read-only state.'
        )
    assert [version.value for version in vault.versions("many00")] == ["v0"]
    vault.read_only = False
    assert (await client.vault(f"/secrets/many00{V}", "PUT", json={"value": "x"}))[0] == 200


async def test_a_vault_with_access_policies_denies_by_permission(client, azure):
    """The message names the permission, and no action of a role."""
    vault = azure.state.vault("kv-a")
    vault.access_policies, vault.denied = True, frozenset({"getSecret", "recoverSecret"})
    for method, path, permission in [
        ("GET", "/secrets/many00", "get"),
        ("POST", "/deletedsecrets/gone/recover", "recover"),
    ]:
        status, inner, message = error_of(await client.vault(f"{path}{V}", method))
        assert (status, inner) == (403, "ForbiddenByPolicy")
        assert f"does not have secrets {permission} permission on key vault 'kv-a;" in message
    assert (await client.vault(f"/secrets{V}"))[0] == 200


async def test_a_fault_can_be_a_conflict(client, azure):
    """Azure answers so to concurrent writes of one secret."""
    azure.faults.add(Fault(operation="setSecret", target="kv-a/many00", status=409, times=1))
    status, body, _ = await client.vault(f"/secrets/many00{V}", "PUT", json={"value": "x"})
    assert (status, body["error"]["code"]) == (409, "Conflict")
    assert [version.value for version in azure.state.vault("kv-a").versions("many00")] == ["v0"]


async def test_an_update_without_a_version_changes_the_latest(client, azure):
    """Older versions do not change."""
    first = await client.secrets.set_secret("name", "one", tags={"a": "1"})
    await client.secrets.set_secret("name", "two")
    assert (await client.vault(f"/secrets/name{V}", "PATCH", json={"tags": {"b": "2"}}))[0] == 200
    assert [version.tags for version in azure.state.vault("kv-a").versions("name")] == [{"a": "1"}, {"b": "2"}]
    path = f"/secrets/name/{first.properties.version}{V}"
    assert (await client.vault(path, "PATCH", json={"contentType": "old"}))[0] == 200
    assert [version.content_type for version in azure.state.vault("kv-a").versions("name")] == ["old", None]


async def test_a_disabled_secret_is_listed_and_can_be_updated(client, azure):
    """Its value cannot be read. A list shows its tags and attributes, and an update may change them or enable it."""
    update = {"tags": {"a": "b"}, "contentType": "t", "attributes": {"exp": 1_900_000_000}}
    assert (await client.vault(f"/secrets/disabled{V}", "PATCH", json=update))[0] == 200
    (listed,) = [item async for item in client.secrets.list_properties_of_secrets() if item.name == "disabled"]
    assert (listed.enabled, listed.tags, listed.content_type) == (False, {"a": "b"}, "t")
    assert listed.expires_on.timestamp() == 1_900_000_000
    assert error_of(await client.vault(f"/secrets/disabled{V}"))[:2] == (403, "SecretDisabled")
    assert (await client.vault(f"/secrets/disabled{V}", "PATCH", json={"attributes": {"enabled": True}}))[0] == 200
    assert (await client.vault(f"/secrets/disabled{V}"))[1]["value"] == "x"
    assert len(azure.state.vault("kv-a").versions("disabled")) == 1


async def test_a_recovering_secret_is_not_available(client, clock):
    """Until the delay is over, it cannot be read, listed, set or updated. A second recovery changes nothing."""
    recovery = f"/deletedsecrets/gone/recover{V}"
    assert (await client.vault(recovery, "POST"))[0] == 200
    clock.now += 3
    assert (await client.vault(recovery, "POST"))[0] == 200
    assert error_of(await client.vault(f"/secrets/gone{V}"))[0] == 404
    assert error_of(await client.vault(f"/secrets/gone{V}", "PATCH", json={}))[0] == 404
    set_now = await client.vault(f"/secrets/gone{V}", "PUT", json={"value": "x"})
    assert error_of(set_now)[:2] == (409, "ObjectIsBeingRecovered")
    assert "gone" not in [item.name async for item in client.secrets.list_properties_of_secrets()]
    clock.now += 2
    assert (await client.vault(f"/secrets/gone{V}"))[1]["value"] == "old"
