"""Recovery levels, purge protection, vaults without soft-delete, and stale reads."""

import pytest

V = "?api-version=7.6"


def error_of(reply):
    status, body, _ = reply
    return status, body["error"]["code"], body["error"].get("innererror", {}).get("code"), body["error"]["message"]


@pytest.mark.parametrize(
    ("settings", "level", "days"),
    [
        ({}, "Recoverable+Purgeable", 90),
        ({"purge_protection": True}, "Recoverable", 90),
        ({"protected_subscription": True}, "Recoverable+ProtectedSubscription", 90),
        ({"retention_days": 7}, "CustomizedRecoverable+Purgeable", 7),
        ({"retention_days": 30, "purge_protection": True}, "CustomizedRecoverable", 30),
        ({"retention_days": 7, "protected_subscription": True}, "CustomizedRecoverable+ProtectedSubscription", 7),
        ({"soft_delete": False}, "Purgeable", None),
    ],
)
async def test_the_recovery_level_follows_the_vault(client, azure, settings, level, days):
    """And so do the days, and the date on which Azure purges a deleted secret."""
    vault = azure.state.vault("kv-a")
    for name, value in settings.items():
        setattr(vault, name, value)
    _, secret, _ = await client.vault(f"/secrets/many00{V}")
    attributes = secret["attributes"]
    assert (attributes["recoveryLevel"], attributes.get("recoverableDays")) == (level, days)
    _, deleted, _ = await client.vault(f"/secrets/many00{V}", "DELETE")
    assert deleted["attributes"] == attributes
    if days is not None:
        assert deleted["scheduledPurgeDate"] - deleted["deletedDate"] == days * 86_400
    else:
        assert not {"recoveryId", "deletedDate", "scheduledPurgeDate"} & set(deleted)


@pytest.mark.parametrize("setting", ["purge_protection", "protected_subscription"])
async def test_purge_protection_refuses_a_purge(client, azure, setting):
    """The secret stays recoverable."""
    setattr(azure.state.vault("kv-a"), setting, True)
    status, code, inner, message = error_of(await client.vault(f"/deletedsecrets/gone{V}", "DELETE"))
    assert (status, code, inner) == (403, "Forbidden", None)
    assert message == (
        'Operation "purge" is not allowed because purge protection is enabled for this vault. Key Vault service will '
        "automatically purge it after the retention period has passed.\r\nVault: kv-a;location=westeurope"
    )
    assert (await client.vault(f"/deletedsecrets/gone{V}"))[0] == 200


async def test_a_vault_without_soft_delete_deletes_for_good(client, azure):
    """The name is free at once. Operations on deleted secrets are not supported."""
    azure.state.vault("kv-a").soft_delete = False
    assert (await client.vault(f"/secrets/many00{V}", "DELETE"))[0] == 200
    assert (await client.vault(f"/secrets/many00{V}", "PUT", json={"value": "x"}))[0] == 200
    for method, path in [("DELETE", ""), ("GET", ""), ("POST", "/recover")]:
        status, code, _, message = error_of(await client.vault(f"/deletedsecrets/gone{path}{V}", method))
        assert (status, code) == (400, "NotSupported")
        assert message.endswith("is not enabled for this vault.")
    assert error_of(await client.vault(f"/deletedsecrets{V}"))[:2] == (400, "NotSupported")


async def test_a_secret_whose_deletion_is_in_progress_cannot_be_purged(client, clock):
    """It is a conflict until the deletion is visible."""
    assert (await client.vault(f"/secrets/many00{V}", "DELETE"))[0] == 200
    expected = (409, "Conflict", "ObjectIsBeingDeleted", "Secret is currently being deleted.")
    assert error_of(await client.vault(f"/deletedsecrets/many00{V}", "DELETE")) == expected
    assert error_of(await client.vault(f"/secrets/many00{V}", "PUT", json={"value": "x"})) == expected
    clock.now += 5
    assert (await client.vault(f"/deletedsecrets/many00{V}", "DELETE"))[0] == 204


async def test_conflicts_of_a_name_have_the_words_of_key_vault(client, clock):
    """For a deleted secret, and for one whose recovery is in progress."""

    async def conflict():
        return error_of(await client.vault(f"/secrets/gone{V}", "PUT", json={"value": "x"}))[2:]

    message = (
        "Secret gone is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the "
        "secret can only be recovered or purged."
    )
    assert await conflict() == ("ObjectIsDeletedButRecoverable", message)
    await client.vault(f"/deletedsecrets/gone/recover{V}", "POST")
    expected = (
        "ObjectIsBeingRecovered",
        "Secret gone is currently being recovered and cannot be re-created; retry later.",
    )
    assert await conflict() == expected
    assert error_of(await client.vault(f"/deletedsecrets/gone{V}", "DELETE"))[2:] == expected
    clock.now += 5
    assert (await client.vault(f"/secrets/gone{V}", "PUT", json={"value": "x"}))[0] == 200


async def test_a_second_deletion_finds_nothing(client, clock):
    """Whether the first one is visible yet or not."""
    assert (await client.vault(f"/secrets/many00{V}", "DELETE"))[0] == 200
    for seconds in (0, 5):
        clock.now += seconds
        assert error_of(await client.vault(f"/secrets/many00{V}", "DELETE"))[:2] == (404, "SecretNotFound")


async def test_a_deleted_secret_is_purged_at_its_date(client, azure, clock):
    """After the retention of its vault."""
    azure.state.vault("kv-a").retention_days = 7
    clock.now += 7 * 86_400 - 1
    headers = {"Authorization": f"Bearer {await fresh_token(client)}"}
    assert (await client.vault(f"/deletedsecrets/gone{V}", headers=headers))[0] == 200
    clock.now += 1
    assert (await client.vault(f"/deletedsecrets/gone{V}", headers=headers))[0] == 404
    assert (await client.vault(f"/secrets/gone{V}", "PUT", json={"value": "x"}, headers=headers))[0] == 200


async def fresh_token(client):
    """A token that was issued now."""
    form = {"grant_type": "client_credentials", "scope": "https://vault.azure.net/.default"}
    ends = client.azure.endpoints
    url = f"{ends.authority}/{ends.tenant_id}/oauth2/v2.0/token"
    form |= {"client_id": ends.client_id, "client_secret": ends.client_secret}
    async with client.session.post(url, data=form) as reply:
        return (await reply.json())["access_token"]


async def test_the_vaults_clock_does_not_hasten_a_deletion(client, azure, clock):
    """It changes the times that the vault shows."""
    vault = azure.state.vault("kv-a")
    await client.vault(f"/secrets/many00{V}", "DELETE")
    vault.clock_offset = 600
    assert (await client.vault(f"/deletedsecrets/many00{V}"))[0] == 404
    _, body, headers = await client.vault(f"/secrets/new{V}", "PUT", json={"value": "x"})
    assert body["attributes"]["created"] == clock.now + 600
    assert headers["Date"] == "Fri, 15 Jan 2027 08:10:00 GMT"


async def value(client, name):
    status, body, _ = await client.vault(f"/secrets/{name}{V}")
    return body.get("value") if status == 200 else status


async def test_reads_after_a_write_can_be_stale_for_seconds(client, azure, clock):
    """Each read returns the secret as it was that long ago."""
    azure.state.vault("kv-a").stale_seconds = 5
    await client.vault(f"/secrets/new{V}", "PUT", json={"value": "one"})
    assert await value(client, "new") == 404
    clock.now += 3
    await client.vault(f"/secrets/new{V}", "PUT", json={"value": "two"})
    assert await value(client, "new") == 404
    clock.now += 2
    assert await value(client, "new") == "one"
    clock.now += 3
    assert await value(client, "new") == "two"
    await client.vault(f"/secrets/new{V}", "DELETE")
    assert await value(client, "new") == "two"
    clock.now += 5
    assert await value(client, "new") == 404


async def test_reads_after_a_write_can_be_stale_for_a_number_of_reads(client, azure):
    """Also after an update. Reads of one version are not stale."""
    vault = azure.state.vault("kv-a")
    await client.vault(f"/secrets/new{V}", "PUT", json={"value": "one"})
    vault.stale_reads = 2
    await client.vault(f"/secrets/new{V}", "PATCH", json={"tags": {"a": "b"}})
    version = vault.find("new").latest.version
    assert (await client.vault(f"/secrets/new/{version}{V}"))[1]["tags"] == {"a": "b"}
    for tags in (None, None, {"a": "b"}):
        assert (await client.vault(f"/secrets/new{V}"))[1].get("tags") == tags
