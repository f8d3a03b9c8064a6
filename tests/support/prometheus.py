"""A real Prometheus, as packaged by Debian, on loopback; found on PATH."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_PATIENCE = 60.0
_TRIES = 5
# Processes on one machine do not use the environment's proxy.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def find_tool(name: str) -> str:
    """The path of ``prometheus`` or ``promtool``. Skips the test if it is missing, and fails it if CI is true."""
    path = shutil.which(name)
    if path is not None:
        return path
    message = f"no {name}: Debian has it in the package prometheus"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def fetch(url: str) -> str:
    """The body of a reply with status 200. Raises OSError for any other."""
    with _direct.open(url, timeout=10) as reply:
        text: str = reply.read().decode()
        return text


def lint(exposition: str) -> tuple[int, str]:
    """Exit code and output of `promtool check metrics` for `exposition`."""
    done = subprocess.run(
        [find_tool("promtool"), "check", "metrics"],
        input=exposition,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@dataclass(frozen=True)
class Prometheus:
    """A server that scrapes."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector of `expression`; empty before the first scrape."""
        result: list[dict[str, Any]] = self.get(f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")[
            "result"
        ]
        return result

    def get(self, path: str) -> dict[str, Any]:
        """The data of a successful reply of its API."""
        reply = json.loads(fetch(f"{self.url}{path}"))
        assert reply["status"] == "success", reply
        data: dict[str, Any] = reply["data"]
        return data

    def first(self, expression: str, patience: float = _PATIENCE) -> list[dict[str, Any]]:
        """The same, once it is not empty; waits `patience` seconds at most."""
        until = time.monotonic() + patience
        while time.monotonic() < until:
            results = self.query(expression)
            if results:
                return results
            time.sleep(0.1)  # a client cannot wait for a scrape
        pytest.fail(f"Prometheus has nothing for {expression}")


@contextmanager
def prometheus_of(target: str, folder: Path, rules: Path | None = None) -> Iterator[Prometheus]:
    """A server that scrapes `target` (host:port) and evaluates the file `rules` every second, until the block ends.

    Its data is in `folder`.
    """
    binary = find_tool("prometheus")
    config = folder / "prometheus.yml"
    # JSON is valid YAML.
    scrape = {"job_name": "keysync", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
    more = {"global": {"evaluation_interval": "1s"}, "rule_files": [str(rules)]} if rules is not None else {}
    config.write_text(json.dumps({"scrape_configs": [scrape], **more}))
    for number in range(_TRIES):
        port, log = _free_port(), folder / f"prometheus{number}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [
                    binary,
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'storage'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                cwd=folder,
                stdout=stream,
                stderr=stream,
                env={name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")},
            )
        try:
            if _is_ready(process, f"http://127.0.0.1:{port}"):
                yield Prometheus(f"http://127.0.0.1:{port}")
                return
            # Another process may have taken the port meanwhile.
            assert "address already in use" in log.read_text(), log.read_text()
        finally:
            process.kill()
            process.wait(20)
    pytest.fail("Prometheus found no free port")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _is_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    until = time.monotonic() + _PATIENCE
    while process.poll() is None:
        try:
            fetch(f"{url}/-/ready")
        except OSError:
            assert time.monotonic() < until, "Prometheus does not get ready"
            time.sleep(0.05)
        else:
            return True
    return False
