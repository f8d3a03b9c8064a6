"""The emulator's certificate and the CA that issued it."""

from __future__ import annotations

import os
import shutil
import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path

import trustme


class Certificate:
    """A new CA, a TLS context with a server certificate of it, and the CA as a file for clients (`bundle`).

    `names` are host names beside localhost, 127.0.0.1 and ::1.
    """

    def __init__(self, names: Iterable[str]) -> None:
        authority = trustme.CA(organization_name="keysync emulator")
        server = authority.issue_cert("localhost", "127.0.0.1", "::1", *names)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.pem = authority.cert_pem.bytes().decode("ascii")
        keys = _Files()
        try:
            self.context.load_cert_chain(keys.write("server.pem", server.private_key_and_cert_chain_pem.bytes()))
        finally:
            keys.remove()
        self._files = _Files()
        self.bundle = self._files.write("ca.pem", authority.cert_pem.bytes())

    def remove(self) -> None:
        """Delete the CA file."""
        self._files.remove()


class _Files:
    """Temporary files, in memory if no folder is writable, as in some containers. `load_cert_chain` takes file names only."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []
        try:
            self._folder: Path | None = Path(tempfile.mkdtemp(prefix="keysync-emulator-"))
        except FileNotFoundError:  # no folder for temporary files is writable
            self._folder = None

    def write(self, name: str, content: bytes) -> Path:
        """Create a file with `content` that only this user can read."""
        if self._folder is not None:
            file = self._folder / name
            file.write_bytes(content)
            return file
        self._descriptors.append(os.memfd_create(name))
        os.write(self._descriptors[-1], content)
        return Path(f"/proc/{os.getpid()}/fd/{self._descriptors[-1]}")

    def remove(self) -> None:
        """Delete the files."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
