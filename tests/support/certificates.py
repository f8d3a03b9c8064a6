"""Certificates with a private key, as used by a service principal to sign in."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


@lru_cache(maxsize=1)
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate_pem(end: datetime, *, with_key: bool = True) -> bytes:
    """A certificate in PEM that is valid for the two years before `end`; with its private key unless `with_key` is
    false.
    """
    key, name = _key(), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "keysync")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, end - timedelta(days=730), end)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) if with_key else b""
    return private + builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
