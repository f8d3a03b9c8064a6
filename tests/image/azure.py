"""The embedded Azure as a process, and configurations for it that a container can mount."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

GROUP = {"subscription_id": "44444444-4444-4444-4444-444444444444", "resource_group": "render"}
FAULTS = {"farm1": None, "farm2": None, "denied": "role_missing", "stuck": "hang"}


def wait_until(true: Callable[[], object], seconds: float) -> None:
    """Returns once `true()` is so and raises nothing; fails when `seconds` have passed."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if true():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)


def ask(url: str, method: str = "GET") -> str:
    """The text of a successful reply. Raises OSError if there is none."""
    request = urllib.request.Request(url, method=method)  # noqa: S310  # of the embedded Azure or the daemon, on loopback
    with urllib.request.urlopen(request, timeout=5) as reply:  # noqa: S310  # nosec B310
        text: str = reply.read().decode()
    return text


class Azure:
    """A running embedded Azure. `secrets` are the beginnings of its keys, and its client secret."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        keys = {name: [b64encode(secrets.token_bytes(64)).decode() for _ in range(2)] for name in FAULTS}
        accounts = [
            {**GROUP, "name": name, "fault": fault, "primary": keys[name][0], "secondary": keys[name][1]}
            for name, fault in FAULTS.items()
        ]
        data = {"accounts": accounts, "vaults": [{"name": "main"}, {"name": "empty"}]}
        (folder / "azure-data.yaml").write_text(json.dumps(data), encoding="utf-8")
        # The beginnings are enough to find a key, and more than any output may have.
        self.secrets = [key[:12] for pair in keys.values() for key in pair]
        self._ready: dict[str, Any] = {}

    @contextmanager
    def running(self) -> Iterator[Azure]:
        """Serves until the block ends."""
        data, ready = self.folder / "azure-data.yaml", self.folder / "ready.json"
        files = ("--data", str(data), "--ready-file", str(ready))
        command = [sys.executable, "-m", "keysync", "emulator", "--limits", "off", *files]
        with (
            (self.folder / "azure.log").open("wb") as log,
            subprocess.Popen(command, stdout=log, stderr=log) as process,
        ):
            try:
                wait_until(lambda: ready.exists() and ready.stat().st_size, 20)
                self._ready = json.loads(ready.read_text(encoding="utf-8"))
                self.secrets.append(self._ready["client_secret"])
                yield self
            finally:
                process.terminate()

    def forget_requests(self) -> None:
        """Starts the count of requests again."""
        ask(f"{self._ready['control']}/counts", "DELETE")

    def keys_were_asked_for(self) -> bool:
        """Whether a request for an account's keys has come since."""
        return "listKeys" in ask(f"{self._ready['control']}/counts")

    def configuration(self, name: str, *accounts: str, vault: str = "main") -> Path:
        """A folder to mount at /etc/keysync, which keeps `accounts` in sync with `vault`."""
        folder = self.folder / name
        folder.mkdir()
        (folder / "client-secret").write_text(self._ready["client_secret"], encoding="utf-8")
        shutil.copyfile(self._ready["ca_bundle"], folder / "ca.pem")
        config = {
            "cloud": {
                "authority": self._ready["authority"],
                "resource_manager": self._ready["resource_manager"],
                "ca_bundle": "ca.pem",
            },
            "credential": {
                "type": "client_secret",
                "tenant_id": self._ready["tenant_id"],
                "client_id": self._ready["client_id"],
                "client_secret_file": "client-secret",
            },
            "vaults": {"main": {"url": self._ready["vaults"][vault], "verify_challenge_resource": False}},
            "accounts": [{**GROUP, "name": account, "vaults": ["main"]} for account in accounts],
            "limits": {"changes_per_day": None},
        }
        (folder / "keysync.yaml").write_text(json.dumps(config), encoding="utf-8")
        readable(folder)
        return folder


def readable(folder: Path) -> None:
    """Lets the image's user read `folder` and the files in it."""
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
