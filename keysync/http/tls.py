"""The TLS context of connections to the outside."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from keysync.errors import UsageError
from keysync.files import check_regular


def tls_context(ca_bundle: Path | None) -> ssl.SSLContext:
    """The system's trust (or SSL_CERT_FILE's), and `ca_bundle` on top of it.

    Raises UsageError where one of the two files cannot be read: better at start than as a failure of every account.
    """
    context = ssl.create_default_context()
    named = os.environ.get("SSL_CERT_FILE")
    if named and not context.cert_store_stats()["x509"]:
        # OpenSSL has looked into it, and goes on without a word where there was nothing to be had: this says why.
        cure = "name a PEM file of the CAs to trust, or unset it"
        _trust(context, Path(named), f"SSL_CERT_FILE={named}: this is not a readable PEM file", cure)
    if ca_bundle is not None:
        _trust(context, ca_bundle, f"cloud.ca_bundle: {ca_bundle} is not a readable PEM file")
    return context


def _trust(context: ssl.SSLContext, path: Path, told: str, cure: str = "") -> None:
    try:
        check_regular(path)  # OpenSSL would block on a FIFO
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise UsageError(f"{told} ({error})" + (f"; {cure}" if cure else "")) from error
