"""When the certificate of a credential expires."""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import pkcs12

UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm)
"""What cryptography raises for a file that is no certificate, or none that it knows."""


def expiry_of(data: bytes, password: bytes | None) -> datetime | None:
    """The end of validity, in UTC, of the certificate in a PEM or PKCS#12 file; None where it cannot be read.

    It is the one that azure-identity signs in with: the first of a PEM file.
    """
    try:
        if b"-----BEGIN" in data:
            return x509.load_pem_x509_certificate(data).not_valid_after_utc
        certificate = pkcs12.load_key_and_certificates(data, password)[1]
    except UNREADABLE:
        return None
    return None if certificate is None else certificate.not_valid_after_utc
