"""An embedded Azure in a process of its own, with a fleet in it, so that its work is not counted as keysync's."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from keysync.config.models import Config
from keysync.sources.interface import KEY_NAMES
from keysync.sync.ownership import KEY, KEYSYNC, MANAGED_BY, SOURCE

GROUP = "fleet"
_LONG_AGO = 1_700_000_000


@dataclass(frozen=True)
class Fleet:
    """How many accounts, over how many vaults and subscriptions; `strangers` are others' secrets in each vault.

    With `in_step` the vaults hold every key already, as after an earlier pass.
    """

    accounts: int
    vaults: int
    subscriptions: int = 1
    strangers: int = 0
    in_step: bool = False

    def subscription(self, number: int) -> str:
        """The id of one subscription."""
        return f"5b000000-0000-4000-8000-{number % self.subscriptions:012d}"

    def data(self) -> dict[str, Any]:
        """The data file of the embedded Azure."""
        accounts = [self._account(number) for number in range(self.accounts)]
        strangers = [{"name": f"stranger-{number}", "value": "x"} for number in range(self.strangers)]
        vaults = [{"name": f"vault-{number}", "secrets": list(strangers)} for number in range(self.vaults)]
        for number, account in enumerate(accounts if self.in_step else ()):
            vaults[number % self.vaults]["secrets"] += _stored(account)
        return {"accounts": accounts, "vaults": vaults}

    def _account(self, number: int) -> dict[str, Any]:
        name = f"acct{number:06d}"
        keys = {key: base64.b64encode(f"{key}-{name}".encode().ljust(64, b".")).decode() for key in KEY_NAMES}
        return {"subscription_id": self.subscription(number), "resource_group": GROUP, "name": name, **keys}


def _stored(account: Mapping[str, Any]) -> list[dict[str, Any]]:
    place = (
        f"/subscriptions/{account['subscription_id']}/resourceGroups/{GROUP}/providers/Microsoft.Batch/batchAccounts"
    )
    marks = {MANAGED_BY: KEYSYNC, SOURCE: f"{place}/{account['name']}"}
    return [
        {
            "name": f"{account['name']}-{key}-key",
            "value": account[key],
            "tags": {**marks, KEY: key},
            "created": _LONG_AGO,
        }
        for key in KEY_NAMES
    ]


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

    def statuses(self) -> dict[str, int]:
        """Replies so far, by status."""
        found: dict[str, int] = self.control("GET", "/statuses")
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
