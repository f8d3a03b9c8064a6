"""The TLS context of outgoing connections."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from keysync.errors import UsageError
from keysync.files import check_regular


def tls_context(ca_bundle: Path | None) -> ssl.SSLContext:
    """Trusts the system's CAs (or those of SSL_CERT_FILE) and those of `ca_bundle`.

    Raises UsageError if one of the files cannot be read, so that it fails at startup and not for every account.
    """
    context = ssl.create_default_context()
    ssl_cert_file = os.environ.get("SSL_CERT_FILE")
    if ssl_cert_file and not context.cert_store_stats()["x509"]:
        # OpenSSL has read the file and ignored an error: load it again to get the error.
        hint = "name a PEM file of the CAs to trust, or unset it"
        _trust(context, Path(ssl_cert_file), f"SSL_CERT_FILE={ssl_cert_file}: this is not a readable PEM file", hint)
    if ca_bundle is not None:
        _trust(context, ca_bundle, f"cloud.ca_bundle: {ca_bundle} is not a readable PEM file")
    return context


def _trust(context: ssl.SSLContext, path: Path, message: str, hint: str = "") -> None:
    try:
        check_regular(path)  # OpenSSL would block on a FIFO
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise UsageError(f"{message} ({error})" + (f"; {hint}" if hint else "")) from error
