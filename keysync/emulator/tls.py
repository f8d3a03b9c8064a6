"""A certificate of the emulator's own making."""

from __future__ import annotations

import os
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
        self.pem = authority.cert_pem.bytes().decode("ascii")
        keys = _Files()
        try:
            self.context.load_cert_chain(keys.write("server.pem", server.private_key_and_cert_chain_pem.bytes()))
        finally:
            keys.remove()
        self._files = _Files()
        self.bundle = self._files.write("ca.pem", authority.cert_pem.bytes())

    def remove(self) -> None:
        """Take the CA file away."""
        self._files.remove()


class _Files:
    """Files for as long as this runs: TLS takes names only, and a container may have no place that can be written to."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []
        try:
            self._folder: Path | None = Path(tempfile.mkdtemp(prefix="keysync-emulator-"))
        except FileNotFoundError:  # none of the folders for temporary files can be used
            self._folder = None

    def write(self, name: str, content: bytes) -> Path:
        """A file with `content`, for this user alone."""
        if self._folder is not None:
            file = self._folder / name
            file.write_bytes(content)
            return file
        self._descriptors.append(os.memfd_create(name))
        os.write(self._descriptors[-1], content)
        return Path(f"/proc/{os.getpid()}/fd/{self._descriptors[-1]}")

    def remove(self) -> None:
        """Takes them away."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
