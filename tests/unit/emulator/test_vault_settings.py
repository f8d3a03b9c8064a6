"""Policies, vaults that only read, and what may be done to a disabled or a recovering secret."""

import pytest

from keysync.emulator import Fault, PolicyData

V = "?api-version=7.6"
DAY = 86_400


def told(reply):
    status, body, _ = reply
    error = body.get("error", {}) if isinstance(body, dict) else {}
    return status, error.get("innererror", {}).get("code"), error.get("message", "")


@pytest.mark.parametrize(
    ("policy", "lacking", "enough", "named"),
    [
        ({"content_type_required": True}, {}, {"contentType": "text/plain"}, "content type"),
        ({"expiry_required": True}, {}, {"exp": 1}, "expiration date"),
        ({"max_validity_days": 30}, {"exp": 31}, {"exp": 30}, "maximum validity"),
        ({"max_validity_days": 30}, {"nbf": 1, "exp": 32}, {"nbf": 1, "exp": 31}, "maximum validity"),
        ({"max_validity_days": 30}, {"exp": 31}, {}, "maximum validity"),
    ],
)
async def test_a_policy_denies_what_lacks_something(client, azure, clock, policy, lacking, enough, named):
    """A set and an update that would leave the secret without it are Forbidden, and change nothing."""

    def body(fields):
        times = {key: int(clock.now + days * DAY) for key, days in fields.items() if key != "contentType"}
        return {"attributes": times, **({"contentType": fields["contentType"]} if "contentType" in fields else {})}

    vault = azure.state.vault("kv-a")
    await client.vault(f"/secrets/before{V}", "PUT", json={"value": "x"})
    vault.policy = PolicyData(**policy)
    for path, method, sent in [
        ("/secrets/new", "PUT", {"value": "x", **body(lacking)}),
        ("/secrets/before", "PATCH", {"tags": {"a": "b"}, **body(lacking)}),
    ]:
        status, inner, message = told(await client.vault(f"{path}{V}", method, json=sent))
        assert (status, inner) == (403, "ForbiddenByPolicy")
        assert named in message
    assert vault.versions("new") == []
    assert vault.versions("before")[0].tags == {}
    for path, method in [("/secrets/new", "PUT"), ("/secrets/before", "PATCH")]:
        sent = {"value": "x", "tags": {"a": "b"}, **body(enough)}
        assert (await client.vault(f"{path}{V}", method, json=sent))[0] == 200
    assert vault.versions("before")[0].tags == {"a": "b"}


async def test_a_policy_looks_at_what_an_update_leaves_alone(client, azure):
    """A secret that already has what is asked for may be updated without saying it again."""
    azure.state.vault("kv-a").policy = PolicyData(content_type_required=True)
    assert (await client.vault(f"/secrets/new{V}", "PUT", json={"value": "x", "contentType": "t"}))[0] == 200
    assert (await client.vault(f"/secrets/new{V}", "PATCH", json={"tags": {"a": "b"}}))[0] == 200


async def test_a_vault_after_a_failover_only_reads(client, azure):
    """Reads and lists go on; each write is 503 and says why, until the vault is back."""
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
    """In the words of the service, which name the permission and no action of a role."""
    vault = azure.state.vault("kv-a")
    vault.access_policies, vault.denied = True, frozenset({"getSecret", "recoverSecret"})
    for method, path, permission in [
        ("GET", "/secrets/many00", "get"),
        ("POST", "/deletedsecrets/gone/recover", "recover"),
    ]:
        status, inner, message = told(await client.vault(f"{path}{V}", method))
        assert (status, inner) == (403, "ForbiddenByPolicy")
        assert f"does not have secrets {permission} permission on key vault 'kv-a;" in message
    assert (await client.vault(f"/secrets{V}"))[0] == 200


async def test_a_vault_that_is_behind_names_its_newest_version(client, azure):
    """An api-version that it does not know is refused as the service refuses it."""
    azure.state.vault("kv-a").api_versions = ["7.3", "7.4"]
    status, _, message = told(await client.vault(f"/secrets/many00{V}"))
    assert status == 400
    assert message == (
        "The specified version (7.6) is not recognized. Consider using the latest supported version (7.4)."
    )
    assert (await client.vault("/secrets/many00?api-version=7.4"))[0] == 200


async def test_purge_protection_leaves_the_purge_to_time(client, azure):
    """It shows in the recovery level of a deleted secret, and a purge is refused."""
    azure.state.vault("kv-a").purge_protection = True
    _, body, _ = await client.vault(f"/deletedsecrets/gone{V}")
    assert body["attributes"]["recoveryLevel"] == "Recoverable"
    assert (await client.vault(f"/deletedsecrets/gone{V}", "DELETE"))[0] == 403
    assert (await client.vault(f"/deletedsecrets/gone{V}"))[0] == 200


async def test_parallel_writes_can_be_in_conflict(client, azure):
    """A fault stands for the conflict that Azure answers to writes of one secret at once."""
    azure.faults.add(Fault(operation="setSecret", target="kv-a/many00", status=409, times=1))
    status, body, _ = await client.vault(f"/secrets/many00{V}", "PUT", json={"value": "x"})
    assert (status, body["error"]["code"]) == (409, "Conflict")
    assert [version.value for version in azure.state.vault("kv-a").versions("many00")] == ["v0"]


async def test_an_update_without_a_version_is_of_the_latest(client, azure):
    """Older versions stay as they are."""
    first = await client.secrets.set_secret("name", "one", tags={"a": "1"})
    await client.secrets.set_secret("name", "two")
    assert (await client.vault(f"/secrets/name{V}", "PATCH", json={"tags": {"b": "2"}}))[0] == 200
    assert [version.tags for version in azure.state.vault("kv-a").versions("name")] == [{"a": "1"}, {"b": "2"}]
    path = f"/secrets/name/{first.properties.version}{V}"
    assert (await client.vault(path, "PATCH", json={"contentType": "old"}))[0] == 200
    assert [version.content_type for version in azure.state.vault("kv-a").versions("name")] == ["old", None]


async def test_a_disabled_secret_is_listed_and_can_be_updated(client, azure):
    """Its value cannot be read, but its tags and attributes show, and an update may tag or enable it."""
    update = {"tags": {"a": "b"}, "contentType": "t", "attributes": {"exp": 1_900_000_000}}
    assert (await client.vault(f"/secrets/disabled{V}", "PATCH", json=update))[0] == 200
    (listed,) = [one async for one in client.secrets.list_properties_of_secrets() if one.name == "disabled"]
    assert (listed.enabled, listed.tags, listed.content_type) == (False, {"a": "b"}, "t")
    assert listed.expires_on.timestamp() == 1_900_000_000
    assert told(await client.vault(f"/secrets/disabled{V}"))[:2] == (403, "SecretDisabled")
    assert (await client.vault(f"/secrets/disabled{V}", "PATCH", json={"attributes": {"enabled": True}}))[0] == 200
    assert (await client.vault(f"/secrets/disabled{V}"))[1]["value"] == "x"
    assert len(azure.state.vault("kv-a").versions("disabled")) == 1


async def test_a_recovering_secret_is_neither_here_nor_there(client, clock):
    """Until the delay is over it cannot be read, listed, set or updated; recovering it again changes nothing."""
    again = f"/deletedsecrets/gone/recover{V}"
    assert (await client.vault(again, "POST"))[0] == 200
    clock.now += 3
    assert (await client.vault(again, "POST"))[0] == 200
    assert told(await client.vault(f"/secrets/gone{V}"))[0] == 404
    assert told(await client.vault(f"/secrets/gone{V}", "PATCH", json={}))[0] == 404
    set_now = await client.vault(f"/secrets/gone{V}", "PUT", json={"value": "x"})
    assert told(set_now)[:2] == (409, "ObjectIsBeingRecovered")
    assert "gone" not in [one.name async for one in client.secrets.list_properties_of_secrets()]
    clock.now += 2
    assert (await client.vault(f"/secrets/gone{V}"))[1]["value"] == "old"
