"""The expiry of a certificate is read from the file that a credential signs in with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

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

from keysync.azure import credentials
from keysync.azure.credentials import Credentials, endpoints_of, expiry_in_environment, expiry_of
from keysync.azure.transport import open_transport
from keysync.config import credentials as config
from keysync.errors import UsageError
from keysync.files import read_small
from keysync.secret.redact import Redactor

END = datetime(2027, 3, 1, 12, tzinfo=UTC)
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(end: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "keysync")])
    builder = x509.CertificateBuilder(name, name, KEY.public_key(), 1, datetime(2026, 3, 1, tzinfo=UTC), end)
    return builder.sign(KEY, hashes.SHA256())


def pem(end: datetime) -> bytes:
    return certificate(end).public_bytes(Encoding.PEM)


PRIVATE = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


# Explicit ids: the keys are random, and parallel test processes must collect the same ids.
@pytest.mark.parametrize(
    "data",
    [PRIVATE + pem(END), pem(END) + PRIVATE + pem(datetime(2030, 1, 1, tzinfo=UTC))],
    ids=["key first", "key within a chain"],
)
def test_the_first_certificate_of_a_pem_file_counts(data: bytes) -> None:
    """azure-identity signs in with it; the others are its chain."""
    assert expiry_of(data, None) == END


def test_a_pkcs12_file_needs_its_password() -> None:
    """With a wrong one the expiry is unknown."""
    data = pkcs12.serialize_key_and_certificates(b"k", KEY, certificate(END), None, BestAvailableEncryption(b"open"))
    assert expiry_of(data, "open") == END
    assert expiry_of(data, "other") is None


@pytest.mark.parametrize(
    "data",
    [b"", b"no certificate", PRIVATE, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
    ids=["empty", "text", "key", "garbage"],
)
def test_the_expiry_of_an_invalid_file_is_unknown(data: bytes) -> None:
    """azure-identity reports the error."""
    assert expiry_of(data, None) is None


def test_the_expiry_of_a_certificate_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown without a readable certificate. A secret has no known expiry, and takes precedence over a certificate."""
    path = tmp_path / "sp.pem"
    path.write_bytes(PRIVATE + pem(END))
    monkeypatch.delenv("AZURE_CLIENT_SECRET", raising=False)
    monkeypatch.delenv("AZURE_CLIENT_CERTIFICATE_PATH", raising=False)
    assert expiry_in_environment() is None
    monkeypatch.setenv("AZURE_CLIENT_CERTIFICATE_PATH", str(path))
    assert expiry_in_environment() == END
    monkeypatch.setenv("AZURE_CLIENT_CERTIFICATE_PATH", str(tmp_path / "none"))
    assert expiry_in_environment() is None
    monkeypatch.setenv("AZURE_CLIENT_CERTIFICATE_PATH", str(path))
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "hunter2")
    assert expiry_in_environment() is None


@asynccontextmanager
async def open_credentials() -> AsyncIterator[Credentials]:
    async with AsyncExitStack() as stack:
        transport = await open_transport(stack, ca_bundle=None, connect_seconds=1, redactor=Redactor())
        yield Credentials(stack, endpoints_of("public"), transport, Redactor(), timeout=1)


def credential_of(path: Path, password: Path | None = None) -> config.ClientCertificateCredential:
    return config.ClientCertificateCredential(
        tenant_id="t", client_id="c", certificate_file=path, password_file=password
    )


async def test_certificate_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For both the sign-in and the expiry."""
    path, password = tmp_path / "sp.pfx", tmp_path / "password"
    path.write_bytes(
        pkcs12.serialize_key_and_certificates(b"k", KEY, certificate(END), None, BestAvailableEncryption(b"open"))
    )
    password.write_text("open\n")
    read: list[Path] = []
    monkeypatch.setattr(credentials, "read_small", lambda file: read.append(file) or read_small(file))
    async with open_credentials() as opened:
        assert (await opened.open(credential_of(path, password))).expires_at == END
    assert sorted(read) == sorted([path, password])


async def test_a_credential_without_a_certificate_has_no_expiry() -> None:
    """Or an unknown one."""
    async with open_credentials() as opened:
        assert (await opened.open(config.DefaultCredential())).expires_at is None


@pytest.mark.parametrize(
    ("content", "password"),
    [(b"no certificate", None), (PRIVATE, None), (b"", "wrong")],
    ids=["text", "key", "empty"],
)
async def test_the_error_of_an_invalid_certificate_names_its_file(
    tmp_path: Path, content: bytes, password: str | None
) -> None:
    """With the SDK's message."""
    path, secret = tmp_path / "sp.pem", tmp_path / "password"
    path.write_bytes(content)
    secret.write_text(password or "")
    async with open_credentials() as opened:
        with pytest.raises(UsageError, match=r"^credential: certificate_file: .*/sp\.pem: .+"):
            await opened.open(credential_of(path, secret if password else None))
