"""The emulator in a separate process, with the accounts of a fleet, so that its CPU time does not count as keysync's."""

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

from keysync.config.model import Config
from tests.benchmarks.fleets import Fleet
from tests.support.settings import config_of

_SECONDS = {"ms": 0.001, "s": 1.0}


def duration(text: str) -> float:
    """Seconds from text such as 40ms or 1s. Raises ValueError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)", text)
    if match is None:
        raise ValueError(f"{text}: expected such as 40ms or 1s")
    return float(match[1]) * _SECONDS[match[2]]


@dataclass(frozen=True)
class Running:
    """A running emulator. `ready` is the content of its ready file."""

    fleet: Fleet
    ready: dict[str, Any]

    def document(self, *, discover: bool = False, **more: Any) -> dict[str, Any]:
        """A configuration for the whole fleet. Its accounts are listed or discovered; `more` are further keys."""
        vaults = {name: {"url": url, "verify_challenge_resource": False} for name, url in self.ready["vaults"].items()}
        cloud = {name: self.ready[name] for name in ("authority", "resource_manager", "ca_bundle")}
        accounts = {"discover": self.fleet.discovered()} if discover else {"accounts": self.fleet.listed()}
        config = {"cloud": cloud, "credential": {"type": "environment"}, "vaults": vaults, **accounts}
        # The benchmarks change every key many times within minutes.
        return {**config, "limits": {"creates": 1_000_000, "changes_per_day": None}, **more}

    def config(self, **more: Any) -> Config:
        """The same as a checked configuration, with listed accounts."""
        return config_of(self.document(**more))

    def counts(self) -> dict[str, int]:
        """The number of requests so far, by operation."""
        counts: dict[str, int] = self.control("GET", "/counts")
        return counts

    def statuses(self) -> dict[str, int]:
        """The number of replies so far, by status."""
        statuses: dict[str, int] = self.control("GET", "/statuses")
        return statuses

    def regenerate(self) -> None:
        """Regenerate both keys of every account."""
        for number in range(self.fleet.accounts):
            for key in ("Primary", "Secondary"):
                self.control("POST", f"/accounts/{self.fleet.name(number)}/regenerate", {"keyName": key})

    def versions(self) -> int:
        """The number of secret versions in all vaults."""
        return sum(
            secret["versions"]
            for name in self.ready["vaults"]
            for secret in self.control("GET", f"/vaults/{name}/secrets")
        )

    def control(self, method: str, path: str, body: object = None) -> Any:
        """Send a request to the control address; returns the JSON of the reply."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.ready["control"] + path, data, headers, method=method)  # noqa: S310
        with _DIRECT.open(request) as reply:
            text = reply.read()
        return json.loads(text) if text else None


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy: the address is on loopback


@contextmanager
def running(fleet: Fleet, *, latency: float = 0.0, limits: bool = False) -> Iterator[Running]:
    """Run the emulator until the block ends. `latency` is in seconds. Sets the environment of the credential."""
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
                    raise RuntimeError("the emulator did not start")
                time.sleep(0.05)
            content = json.loads(ready.read_text())
            os.environ.update({f"AZURE_{name.upper()}": content[name] for name in ("tenant_id", "client_id")})
            os.environ["AZURE_CLIENT_SECRET"] = content["client_secret"]
            yield Running(fleet, content)
        finally:
            process.communicate()
