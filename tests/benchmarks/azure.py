"""An embedded Azure in a process of its own, with a fleet in it, so that its work is not counted as keysync's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from keysync.config.models import Config

GROUP = "fleet"


@dataclass(frozen=True)
class Fleet:
    """How many accounts, over how many vaults and subscriptions; `strangers` are others' secrets in each vault."""

    accounts: int
    vaults: int
    subscriptions: int = 1
    strangers: int = 0

    def subscription(self, number: int) -> str:
        """The id of one subscription."""
        return f"5b000000-0000-4000-8000-{number % self.subscriptions:012d}"

    def data(self) -> dict[str, Any]:
        """The data file of the embedded Azure."""
        secrets = [{"name": f"stranger-{number}", "value": "x"} for number in range(self.strangers)]
        return {
            "accounts": [
                {"subscription_id": self.subscription(number), "resource_group": GROUP, "name": f"acct{number:06d}"}
                for number in range(self.accounts)
            ],
            "vaults": [{"name": f"vault-{number}", "secrets": secrets} for number in range(self.vaults)],
        }


@dataclass(frozen=True)
class Running:
    """One that runs: `ready` is its ready file."""

    fleet: Fleet
    ready: dict[str, Any]

    def config(self, **more: Any) -> Config:
        """A configuration for the whole fleet."""
        names = list(self.ready["vaults"])
        vaults = {name: {"url": url, "verify_challenge_resource": False} for name, url in self.ready["vaults"].items()}
        accounts = [
            {
                "subscription_id": account["subscription_id"],
                "resource_group": GROUP,
                "name": account["name"],
                "vaults": [names[number % len(names)]],
            }
            for number, account in enumerate(self.fleet.data()["accounts"])
        ]
        cloud = {name: self.ready[name] for name in ("authority", "resource_manager", "ca_bundle")}
        given = {"cloud": cloud, "credential": {"type": "environment"}, "vaults": vaults, "accounts": accounts}
        return Config.model_validate({**given, "limits": {"creates": 1_000_000, "changes_per_day": None}, **more})

    def counts(self) -> dict[str, int]:
        """Requests so far, by operation."""
        found: dict[str, int] = self.control("GET", "/counts")
        return found

    def control(self, method: str, path: str, body: object = None) -> Any:
        """Asks the control address."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.ready["control"] + path, data, method=method)  # noqa: S310
        with urllib.request.urlopen(request) as reply:  # noqa: S310  # loopback
            text = reply.read()
        return json.loads(text) if text else None


@contextmanager
def running(fleet: Fleet, *arguments: str) -> Iterator[Running]:
    """Starts it with further `arguments` of `keysync emulator`, sets the credential's environment, and ends it."""
    with TemporaryDirectory() as folder:
        data, ready = Path(folder, "data.json"), Path(folder, "ready.json")
        data.write_text(json.dumps(fleet.data()))  # JSON is YAML too, and quicker to write
        command = [sys.executable, "-m", "keysync", "emulator", "--data", str(data), "--ready-file", str(ready)]
        process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL)
        try:
            while not ready.exists():
                if process.poll() is not None:
                    raise RuntimeError("the embedded Azure did not start")
                time.sleep(0.05)
            told = json.loads(ready.read_text())
            os.environ.update({f"AZURE_{name.upper()}": told[name] for name in ("tenant_id", "client_id")})
            os.environ["AZURE_CLIENT_SECRET"] = told["client_secret"]
            yield Running(fleet, told)
        finally:
            process.terminate()
            process.wait()
