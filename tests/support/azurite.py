"""Azurite, Microsoft's emulator of Azure Storage, as a second Queue service for the tests of queues."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

PROGRAM = "azurite-queue"
ACCOUNT = "devstoreaccount1"


@dataclass(frozen=True)
class Azurite:
    """A running Azurite: the URL of its account, and the file with its CA."""

    url: str
    bundle: Path


def is_there() -> bool:
    """Whether Azurite is installed. `nox -s slow` brings it if npm is there."""
    return shutil.which(PROGRAM) is not None


@contextmanager
def running_azurite(folder: Path) -> Iterator[Azurite]:
    """Runs the Queue service on a free port of loopback. It takes tokens, over HTTPS."""
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    chain, key, bundle = folder / "chain.pem", folder / "key.pem", folder / "ca.pem"
    chain.write_bytes(b"".join(part.bytes() for part in server.cert_chain_pems))
    server.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(bundle))
    command = [
        *(PROGRAM, "--queuePort", "0", "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"),
        *("--oauth", "basic", "--cert", str(chain), "--key", str(key)),
    ]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield Azurite(f"{_address(process)}/{ACCOUNT}", bundle)
        finally:
            process.terminate()
            process.communicate(timeout=30)


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if found := re.search(r"listens on (https://\S+)", line):
            return found[1]
    raise AssertionError(f"{PROGRAM} ended: {printed}")
