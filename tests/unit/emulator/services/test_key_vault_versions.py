"""The api-versions of Key Vault, and the shapes of each."""

import base64
from datetime import UTC, datetime

import pytest
from azure.keyvault.secrets import ApiVersion
from cryptography import x509
from cryptography.hazmat.primitives.serialization import NoEncryption, load_pem_private_key, pkcs12
from pydantic import ValidationError

from keysync.emulator import VaultData
from keysync.emulator.vault_secrets import Secret
from keysync.emulator.vault_versions import VERSIONS
from tests.support.certificates import certificate_pem


async def test_every_api_version_of_the_sdk_is_served(client):
    """And another, or none, is refused in the words of the service."""
    assert set(VERSIONS) == {version.value for version in ApiVersion}
    for version in VERSIONS:
        assert (await client.vault(f"/secrets/many00?api-version={version}"))[0] == 200
    status, body, _ = await client.vault("/secrets/many00?api-version=7.7")
    latest = f"Consider using the latest supported version ({VERSIONS[-1]})."
    assert (status, body["error"]) == (
        400,
        {"code": "BadParameter", "message": f"The specified version (7.7) is not recognized. {latest}"},
    )
    assert (await client.vault("/secrets/many00"))[0] == 400


async def test_a_cloud_can_have_older_api_versions(client, azure):
    """The refusal names the latest of them."""
    azure.state.vault("kv-a").api_versions = ["7.3", "7.4"]
    status, body, _ = await client.vault("/secrets/many00?api-version=7.6")
    assert status == 400
    assert body["error"]["message"].endswith(
        "(7.6) is not recognized. Consider using the latest supported version (7.4)."
    )
    assert (await client.vault("/secrets/many00?api-version=7.4"))[0] == 200
    with pytest.raises(ValidationError, match=r"'7\.7' is no api-version of Key Vault \(there are 2016-10-01, 7\.0"):
        VaultData(name="kv-old", api_versions=["7.7"])


@pytest.mark.parametrize("version", VERSIONS)
async def test_fields_that_a_version_does_not_know_are_absent(client, azure, version):
    """`recoverableDays` came with 7.1, `previousVersion` with 2025-07-01."""
    secret = azure.state.vault("kv-a").find("cert")
    azure.state.vault("kv-a").add_version("cert", "y")
    _, bundle, _ = await client.vault(f"/secrets/cert?api-version={version}")
    assert ("recoverableDays" in bundle["attributes"]) is (version not in {"2016-10-01", "7.0"})
    expected = secret.versions[0].version if version in {"2025-07-01", "2026-04-01"} else None
    assert bundle.get("previousVersion") == expected
    assert set(bundle["attributes"]) - {"recoverableDays"} == {"enabled", "created", "updated", "recoveryLevel"}


async def test_a_certificates_secret_has_the_id_of_its_key(client, azure):
    """Also its older versions and its deleted state. Items of lists only say that it is managed."""
    vault = azure.state.vault("kv-a")
    vault.add_version("cert", "y", content_type="application/x-pkcs12")
    latest = vault.find("cert").latest.version
    base = azure.endpoints.vaults["kv-a"]
    _, bundle, _ = await client.vault("/secrets/cert?api-version=7.6")
    assert (bundle["managed"], bundle["kid"]) == (True, f"{base}/keys/cert/{latest}")
    first = vault.find("cert").versions[0].version
    _, old, _ = await client.vault(f"/secrets/cert/{first}?api-version=7.6")
    assert old["kid"] == f"{base}/keys/cert/{first}"
    _, page, _ = await client.vault("/secrets/cert/versions?api-version=7.6")
    assert [set(item) - {"contentType"} for item in page["value"]] == [{"id", "attributes", "managed"}] * 2


@pytest.mark.parametrize(
    ("method", "body", "operation"),
    [("PUT", {"value": "x"}, "set"), ("PATCH", {}, "update"), ("DELETE", None, "delete")],
)
async def test_a_certificates_secret_cannot_be_changed(client, azure, method, body, operation):
    """The refusal names the operation, and says where to carry it out."""
    status, reply, _ = await client.vault("/secrets/cert?api-version=7.6", method, json=body)
    assert (status, reply["error"]["innererror"]) == (403, {"code": "SecretManagedByKeyVault"})
    assert reply["error"]["message"].startswith(
        f'Operation "{operation}" is not allowed on this secret, since it is associated with a certificate. Perform the '
        "operation on the corresponding certificate."
    )
    assert isinstance(azure.state.vault("kv-a").find("cert"), Secret)


async def test_an_absent_secret_is_reported_in_the_words_of_its_time(client):
    """The service of 2018 had a shorter message."""
    _, old, _ = await client.vault("/secrets/none?api-version=7.0")
    assert old["error"] == {"code": "SecretNotFound", "message": "Secret not found: none"}
    _, new, _ = await client.vault("/secrets/none?api-version=7.6")
    assert new["error"]["message"].startswith("A secret with (name/id) none was not found in this key vault. ")
    assert new["error"]["message"].endswith("please see https://go.microsoft.com/fwlink/?linkid=2125182")


async def test_new_versions_convert_a_certificate_to_pem(client, azure):
    """From PKCS #12, and nothing else. Older versions do not know the parameter."""
    pem = certificate_pem(datetime(2040, 1, 1, tzinfo=UTC))
    key, certificate = load_pem_private_key(pem, None), x509.load_pem_x509_certificate(pem)
    pfx = base64.b64encode(pkcs12.serialize_key_and_certificates(None, key, certificate, None, NoEncryption())).decode()
    vault = azure.state.vault("kv-a")
    vault.add_version("cert", pfx, content_type="application/x-pkcs12")
    path = "/secrets/cert?api-version={}&outContentType=application/{}"
    _, body, _ = await client.vault(path.format("2026-04-01", "x-pem-file"))
    assert body["contentType"] == "application/x-pem-file"
    assert x509.load_pem_x509_certificate(body["value"].encode()) == certificate
    assert load_pem_private_key(body["value"].encode(), None).private_numbers() == key.private_numbers()
    for version, kind in (("2026-04-01", "x-pkcs12"), ("7.6", "x-pem-file")):
        assert (await client.vault(path.format(version, kind)))[1]["value"] == pfx
    assert (await client.vault(path.format("2026-04-01", "json")))[0] == 400
    vault.add_version("cert", "no PFX", content_type="application/x-pkcs12")
    assert (await client.vault(path.format("2026-04-01", "x-pem-file")))[0] == 400
