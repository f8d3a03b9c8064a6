"""When a certificate expires is read from the file that one signs in with."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from keysync.azure.certificate import expiry_of
from keysync.azure.credentials import _expiry
from keysync.config import settings

END = datetime(2027, 3, 1, 12, tzinfo=UTC)
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(end: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "keysync")])
    made = x509.CertificateBuilder(name, name, KEY.public_key(), 1, datetime(2026, 3, 1, tzinfo=UTC), end)
    return made.sign(KEY, hashes.SHA256())


def pem(end: datetime) -> bytes:
    return certificate(end).public_bytes(Encoding.PEM)


PRIVATE = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("data", [PRIVATE + pem(END), pem(END) + PRIVATE + pem(datetime(2030, 1, 1, tzinfo=UTC))])
def test_of_a_pem_file_the_first_certificate_counts(data: bytes) -> None:
    """It is the one that is presented; what follows is its chain."""
    assert expiry_of(data, None) == END


def test_of_a_pkcs12_file_it_takes_the_password() -> None:
    """Without the right one nothing is known, and nothing breaks."""
    data = pkcs12.serialize_key_and_certificates(b"k", KEY, certificate(END), None, BestAvailableEncryption(b"open"))
    assert expiry_of(data, b"open") == END
    assert expiry_of(data, b"other") is None


@pytest.mark.parametrize(
    "data", [b"", b"no certificate", PRIVATE, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_tells_nothing(data: bytes) -> None:
    """azure-identity says what is wrong with it."""
    assert expiry_of(data, None) is None


def test_a_credential_tells_when_it_can(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate of the configuration or of the environment does; a secret does not, and wins where both are set."""
    path = tmp_path / "sp.pem"
    path.write_bytes(PRIVATE + pem(END))
    same = {"tenant_id": "t", "client_id": "c"}
    told = settings.ClientCertificateCredential(certificate_file=path, password_file=None, **same)
    assert _expiry(told) == END
    environment = settings.EnvironmentCredential()
    monkeypatch.delenv("AZURE_CLIENT_SECRET", raising=False)
    monkeypatch.setenv("AZURE_CLIENT_CERTIFICATE_PATH", str(path))
    assert _expiry(environment) == END
    monkeypatch.setenv("AZURE_CLIENT_CERTIFICATE_PATH", str(tmp_path / "none"))
    assert _expiry(environment) is None
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "hunter2")
    assert _expiry(environment) is None
    assert _expiry(settings.DefaultCredential()) is None
