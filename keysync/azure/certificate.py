"""Reads when the certificate of a credential expires."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import pkcs12

UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm)
"""The exceptions of cryptography for a file that is not a certificate, or of an unsupported kind."""


def expiry_of(data: bytes, password: bytes | None) -> datetime | None:
    """When the certificate in a PEM or PKCS#12 file expires, in UTC; None if it cannot be read.

    In a PEM file the first certificate counts, as azure-identity signs in with that.
    """
    try:
        if b"-----BEGIN" in data:
            return x509.load_pem_x509_certificate(data).not_valid_after_utc
        certificate = pkcs12.load_key_and_certificates(data, password)[1]
    except UNREADABLE:
        return None
    return None if certificate is None else certificate.not_valid_after_utc
