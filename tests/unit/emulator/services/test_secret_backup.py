"""Backup and restore, and the pages of lists."""

import base64
from urllib.parse import parse_qsl, urlsplit

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError

from keysync.emulator import Emulator, EmulatorData, Fault, SecretData, VaultData
from keysync.emulator.backup_cipher import BackupCipher, CorruptBackup
from tests.unit.emulator.conftest import connect

V = "?api-version=7.6"
OTHER_SUBSCRIPTION = "5b000000-0000-4000-8000-00000000000f"


async def test_a_secret_is_restored_with_its_versions(client, azure, clock):
    """Values, properties and versions are as before. The reply has no value."""
    vault = azure.state.vault("kv-a")
    first = await client.secrets.set_secret("kept", "one", tags={"a": "b"}, content_type="text/plain")
    clock.now += 60
    second = await client.secrets.set_secret("kept", "two", not_before=first.properties.created_on)
    blob = await client.secrets.backup_secret("kept")
    await client.vault(f"/secrets/kept{V}", "DELETE")
    clock.now += 5
    await client.secrets.purge_deleted_secret("kept")
    restored = await client.secrets.restore_secret_backup(blob)
    assert (restored.id, restored.created_on) == (second.id, second.properties.created_on)
    assert (await client.secrets.get_secret("kept", first.properties.version)).value == "one"
    assert (await client.secrets.get_secret("kept")).value == "two"
    assert vault.versions("kept")[0].tags == {"a": "b"}
    value = base64.urlsafe_b64encode(await client.secrets.backup_secret("kept")).decode()
    await client.vault(f"/secrets/kept{V}", "DELETE")
    clock.now += 5
    await client.secrets.purge_deleted_secret("kept")
    status, body, _ = await client.vault(f"/secrets/restore{V}", "POST", json={"value": value})
    assert (status, set(body)) == (200, {"id", "attributes"})
    assert {"backupSecret", "restoreSecret"} <= set(azure.counts)


async def test_the_blob_is_opaque(client):
    """It begins like Azure's, differs each time, and shows neither name nor value."""
    await client.secrets.set_secret("plainname", "plainvalue")
    blobs = {await client.secrets.backup_secret("plainname") for _ in range(2)}
    assert len(blobs) == 2
    for blob in blobs:
        assert blob.startswith(b")AzureKeyVaultSecretBackupV1.microsoft.com")
        assert b"plain" not in blob


@pytest.mark.parametrize("name", ["many00", "gone"])
async def test_a_name_in_use_is_a_conflict(client, azure, clock, name):
    """Also that of a deleted secret."""
    if name == "gone":
        await client.vault(f"/deletedsecrets/gone/recover{V}", "POST")
        clock.now += 5
    blob = await client.secrets.backup_secret(name)
    version = azure.state.vault("kv-a").find(name).latest.version
    if name == "gone":
        await client.vault(f"/secrets/gone{V}", "DELETE")
    with pytest.raises(ResourceExistsError) as caught:
        await client.secrets.restore_secret_backup(blob)
    assert caught.value.error.code == "Conflict"
    url = f"{azure.endpoints.vaults['kv-a']}/secrets/{name}/{version}"
    assert f"There was a conflict restoring the secret '{url}'. This can happen if either: " in str(caught.value)


async def test_only_a_vault_of_the_same_subscription_restores(client, azure):
    """And only of the same emulator."""
    blob = await client.secrets.backup_secret("many00")
    foreign = BackupCipher().encrypt(
        azure.state.vault("kv-a").find("many00"), azure.state.vault("kv-a").subscription_id
    )
    encoded = base64.urlsafe_b64encode(blob).decode().rstrip("=")
    azure.state.vault("kv-a").subscription_id = OTHER_SUBSCRIPTION
    for value in (encoded, foreign):
        status, body, _ = await client.vault(f"/secrets/restore{V}", "POST", json={"value": value})
        assert (status, body["error"]) == (400, {"code": "BadParameter", "message": "Cannot decrypt backup blob."})


@pytest.mark.parametrize("blob", ["not base64!", "AAAA", "A", base64.urlsafe_b64encode(bytes(4728)).decode()])
async def test_a_malformed_blob_is_refused(client, blob):
    """In the words of the service."""
    with pytest.raises(CorruptBackup):
        BackupCipher().decrypt(blob, OTHER_SUBSCRIPTION)
    status, body, _ = await client.vault(f"/secrets/restore{V}", "POST", json={"value": blob})
    message = "Backup blob contains invalid or corrupt version."
    assert (status, body["error"]) == (400, {"code": "BadParameter", "message": message})
    assert (await client.vault(f"/secrets/restore{V}", "POST", json={}))[0] == 400


async def test_more_than_500_versions_are_not_backed_up(client, azure):
    """The reply says that its code is invented."""
    vault = azure.state.vault("kv-a")
    for _ in range(499):
        vault.add_version("many00", "x")
    assert len(await client.secrets.backup_secret("many00")) > 500
    vault.add_version("many00", "x")
    with pytest.raises(HttpResponseError) as caught:
        await client.secrets.backup_secret("many00")
    assert (caught.value.status_code, caught.value.error.code) == (400, "BadParameter")
    assert "The emulator invented this code" in str(caught.value)


async def test_a_backup_outlives_a_restart(tmp_path):
    """`--state` keeps the key of backups."""
    content = EmulatorData(
        vaults=[VaultData(name=name, secrets=[SecretData(name="kept")]) for name in ("kv-a", "kv-denied")]
    )
    async with Emulator(content, state_directory=tmp_path) as azure, connect(azure) as client:
        blob = await client.secrets.backup_secret("kept")
    content.vaults[0].secrets.clear()
    async with Emulator(content, state_directory=tmp_path) as azure, connect(azure) as client:
        azure.state.vault("kv-a").restore([], [])
        assert (await client.secrets.restore_secret_backup(blob)).name == "kept"


async def test_a_read_only_vault_restores_nothing(client, azure):
    """It still makes backups. Faults and denials apply to both."""
    vault = azure.state.vault("kv-a")
    vault.read_only = True
    assert (await client.vault(f"/secrets/many00/backup{V}", "POST"))[0] == 200
    _, body, _ = await client.vault(f"/secrets/restore{V}", "POST", json={"value": "x"})
    assert body["error"]["message"].startswith('Operation "SecretRestore" is unavailable')
    azure.faults.add(Fault(operation="backupSecret", target="kv-a/many01", status=500, times=1))
    assert (await client.vault(f"/secrets/many01/backup{V}", "POST"))[0] == 500
    assert VaultData(name="kv-b", denied=["backupSecret", "restoreSecret"]).denied == ["backupSecret", "restoreSecret"]


@pytest.mark.parametrize("size", [None, "10"])
async def test_the_link_to_the_next_page_is_like_azures(client, azure, size):
    """It names the port, and has `maxresults` only if the request had it."""
    asked = f"&maxresults={size}" if size else ""
    _, page, _ = await client.vault(f"/secrets{V}{asked}")
    assert len(page["value"]) == int(size or 25)
    base, link = urlsplit(azure.endpoints.vaults["kv-a"]), urlsplit(page["nextLink"])
    assert (link.netloc, link.path) == (base.netloc, "/secrets")
    expected = ["api-version", "$skiptoken", *(["maxresults"] if size else [])]
    assert [name for name, _ in parse_qsl(link.query)] == expected
    token = dict(parse_qsl(link.query))["$skiptoken"]
    assert b'"NextMarker"' in base64.urlsafe_b64decode(token + "==")
    _, second, _ = await client.vault(f"{link.path}?{link.query}")
    assert not {item["id"] for item in page["value"]} & {item["id"] for item in second["value"]}


async def test_a_host_without_a_port_gets_one_in_the_link(client):
    """As Azure's links have `:443`."""
    _, page, _ = await client.vault(
        f"/secrets{V}", headers={"Host": "kv-a.localhost", "Authorization": await bearer(client)}
    )
    assert page["nextLink"].startswith("https://kv-a.localhost:443/secrets?api-version=7.6&$skiptoken=")


async def bearer(client):
    return f"Bearer {await client.token('https://vault.azure.net')}"


@pytest.mark.parametrize(
    "query",
    [
        "maxresults=0",
        "maxresults=26",
        "maxresults=many",
        "$skiptoken=e30",
        "$skiptoken=!",
        f"$skiptoken={'W1tb' * 1000}",
    ],
)
async def test_an_invalid_page_is_refused(client, query):
    """A size beyond the limits, and a token of another service."""
    for path in ("/secrets", "/secrets/many00/versions", "/deletedsecrets"):
        assert (await client.vault(f"{path}{V}&{query}"))[0] == 400


async def test_lists_can_begin_with_an_empty_page(client, azure):
    """Its link leads to the first secrets. The SDK goes on."""
    azure.state.vault("kv-a").empty_page = True
    _, page, _ = await client.vault(f"/secrets{V}")
    assert page["value"] == []
    assert "$skiptoken=" in page["nextLink"]
    assert len([secret async for secret in client.secrets.list_properties_of_secrets()]) == 62
    assert [secret.name async for secret in client.secrets.list_deleted_secrets()] == ["gone"]
    assert len([version async for version in client.secrets.list_properties_of_secret_versions("many00")]) == 1
