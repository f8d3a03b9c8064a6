"""The conversion of a certificate's secret that api-versions since 2025-07-01 offer (`outContentType`)."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12

from keysync.emulator.services.secret_body import bad_parameter
from keysync.emulator.vault_secrets import SecretVersion
from keysync.emulator.wire import Refused

_PFX: Final = "application/x-pkcs12"
_PEM: Final = "application/x-pem-file"


def converted(version: SecretVersion, requested: str) -> str:
    """The value of a certificate's secret in the format `requested`, a media type.

    Raises Refused for any conversion but that of PKCS #12 to PEM, as the description of the parameter says.
    """
    if requested == version.content_type:
        return version.value
    if (version.content_type, requested) != (_PFX, _PEM):
        raise Refused(
            bad_parameter(f"The certificate cannot be converted to {requested}: only PFX to PEM is supported.")
        )
    try:
        key, certificate, others = pkcs12.load_key_and_certificates(base64.b64decode(version.value), None)
    except (binascii.Error, ValueError):
        raise Refused(bad_parameter("The value of the secret is no PFX.")) from None
    parts = [each.public_bytes(Encoding.PEM) for each in (certificate, *others) if each is not None]
    if key is not None:
        parts.insert(0, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return b"".join(parts).decode()
