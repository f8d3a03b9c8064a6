"""A certificate of the emulator's own making."""

from __future__ import annotations

import shutil
import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path

import trustme


class Certificate:
    """A CA made for this run, the server's TLS context, and the CA as a file that clients can be pointed at."""

    def __init__(self, names: Iterable[str]) -> None:
        authority = trustme.CA(organization_name="keysync emulator")
        server = authority.issue_cert("localhost", "127.0.0.1", "::1", *names)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.configure_cert(self.context)
        self.pem = authority.cert_pem.bytes().decode("ascii")
        self._directory = Path(tempfile.mkdtemp(prefix="keysync-emulator-"))
        self.bundle = self._directory / "ca.pem"
        self.bundle.write_text(self.pem, encoding="ascii")

    def remove(self) -> None:
        """Take the CA file away."""
        shutil.rmtree(self._directory, ignore_errors=True)
