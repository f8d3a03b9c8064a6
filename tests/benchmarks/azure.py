"""An embedded Azure in a process of its own, with a fleet in it, so that its work is not counted as keysync's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from keysync.config.settings import Config
from tests.benchmarks.fleets import Fleet
from tests.support.settings import config_of

_SECONDS = {"ms": 0.001, "s": 1.0}


def duration(text: str) -> float:
    """Seconds from such as 40ms or 1s. Raises ValueError."""
    told = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)", text)
    if told is None:
        raise ValueError(f"{text}: expected such as 40ms or 1s")
    return float(told[1]) * _SECONDS[told[2]]


@dataclass(frozen=True)
class Running:
    """One that runs: `ready` is its ready file."""

    fleet: Fleet
    ready: dict[str, Any]

    def document(self, *, discover: bool = False, **more: Any) -> dict[str, Any]:
        """A configuration for the whole fleet, its accounts listed or discovered."""
        vaults = {name: {"url": url, "verify_challenge_resource": False} for name, url in self.ready["vaults"].items()}
        cloud = {name: self.ready[name] for name in ("authority", "resource_manager", "ca_bundle")}
        accounts = {"discover": self.fleet.discovered()} if discover else {"accounts": self.fleet.listed()}
        given = {"cloud": cloud, "credential": {"type": "environment"}, "vaults": vaults, **accounts}
        # Every key changes within minutes here, many times.
        return {**given, "limits": {"creates": 1_000_000, "changes_per_day": None}, **more}

    def config(self, **more: Any) -> Config:
        """The same, checked; accounts are listed."""
        return config_of(self.document(**more))

    def counts(self) -> dict[str, int]:
        """Requests so far, by operation."""
        found: dict[str, int] = self.control("GET", "/counts")
        return found

    def statuses(self) -> dict[str, int]:
        """Replies so far, by status."""
        found: dict[str, int] = self.control("GET", "/statuses")
        return found

    def regenerate(self) -> None:
        """Replaces every key."""
        for number in range(self.fleet.accounts):
            for key in ("Primary", "Secondary"):
                self.control("POST", f"/accounts/{self.fleet.name(number)}/regenerate", {"keyName": key})

    def versions(self) -> int:
        """How many versions all secrets have together."""
        return sum(
            one["versions"] for name in self.ready["vaults"] for one in self.control("GET", f"/vaults/{name}/secrets")
        )

    def control(self, method: str, path: str, body: object = None) -> Any:
        """Asks the control address."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.ready["control"] + path, data, method=method)  # noqa: S310
        with _DIRECT.open(request) as reply:
            text = reply.read()
        return json.loads(text) if text else None


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on loopback


@contextmanager
def running(fleet: Fleet, *, latency: float = 0.0, limits: bool = False) -> Iterator[Running]:
    """Starts it with `latency` in seconds, sets the credential's environment, and ends it."""
    with TemporaryDirectory() as folder:
        ready = Path(folder, "ready.json")
        command = [sys.executable, "-m", "tests.benchmarks.server", json.dumps(asdict(fleet)), str(ready)]
        process = subprocess.Popen(
            [*command, "--latency", str(latency), *(["--limits"] if limits else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
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
            process.communicate()
