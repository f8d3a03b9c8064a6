"""Runs the installed command in its own process against the embedded Azure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.azure import GROUP, SUBSCRIPTION, RunningAzure, data, running_azure
from tests.support.forked_commands import Forks
from tests.support.warm_process import WarmKeysync, warm_keysync


@dataclass(frozen=True)
class Ran:
    """The output and the exit code of a command."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        return json.loads(self.out)

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]

    def outcomes(self) -> dict[str, str]:
        return {f"{item['vault']}/{item['secret']}": item["outcome"] for item in self.report["items"]}


def clean_environment() -> dict[str, str]:
    """This process's environment without any variable that configures keysync, Azure or a proxy."""
    kept = {
        k: v for k, v in os.environ.items() if not k.upper().startswith(("AZURE_", "KEYSYNC_", "IDENTITY_", "MSI_"))
    }
    return {k: v for k, v in kept.items() if not k.upper().endswith("_PROXY")}


def run_keysync(*arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Ran:
    """Runs `keysync` until it ends; warnings are errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "keysync", *arguments],
        env={**clean_environment(), **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


class World:
    """An embedded Azure and a configuration for it, in the test's own folder."""

    def __init__(self, azure: RunningAzure, folder: Path, forks: Forks | None = None, *, by_path: bool = False) -> None:
        self.running = azure
        self.folder = folder
        self.path = folder / "keysync.yaml"
        self._forks = forks
        self._named = ["-c", str(self.path)] if by_path or forks is None else []

    def configure(self, accounts: Sequence[str | dict[str, Any]], **more: Any) -> None:
        """Writes the configuration as JSON, which is valid YAML."""
        endpoints = self.running.azure.endpoints
        common = {"subscription_id": SUBSCRIPTION, "resource_group": GROUP, "vaults": ["main"]}
        document = {
            "cloud": {
                "authority": endpoints.authority,
                "resource_manager": endpoints.resource_manager,
                "ca_bundle": str(endpoints.ca_bundle),
            },
            "credential": {"type": "environment"},
            "vaults": {
                name: {"url": url, "verify_challenge_resource": False} for name, url in endpoints.vaults.items()
            },
            "accounts": [
                {**common, **({"name": account} if isinstance(account, str) else account)} for account in accounts
            ],
            "listen": "127.0.0.1:0",
            **more,
        }
        self.path.write_text(json.dumps(document, indent=1))

    def run(self, command: str, *arguments: str, env: Mapping[str, str] | None = None) -> Ran:
        """Runs a command with this configuration, in the configuration's folder."""
        own = {**self.running.environ, **(env or {})}
        if self._forks is not None:
            arguments = (*self._named, *arguments)
            return Ran(*self._forks.run([command, *arguments], {**clean_environment(), **own}, self.folder))
        return run_keysync(command, *self._named, *arguments, env=own, cwd=self.folder)

    def sync(self, *arguments: str, **more: Any) -> Ran:
        """Runs `keysync sync --output json`."""
        return self.run("sync", "--output", "json", *arguments, **more)

    def versions(self, vault: str, secret: str) -> list[Any]:
        """The versions of a secret, oldest first."""
        return self.running.do(lambda azure: list(azure.state.vault(vault).versions(secret)))


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Runs keysync in forked processes, which start quickly."""
    with Forks(tmp_path_factory.mktemp("forks")) as forks:
        yield forks


@pytest.fixture
def make_quick_world(tmp_path: Path, forks: Forks) -> Iterator[Callable[..., World]]:
    """Like `make_world`, for tests that run keysync often."""
    with ExitStack() as stack:

        def make(*accounts: Any, vaults: tuple[Any, ...] = ("main",), **options: Any) -> World:
            azure = stack.enter_context(running_azure(data(*accounts, vaults=vaults), **options))
            return World(azure, tmp_path, forks)

        yield make


@pytest.fixture
def make_world(tmp_path: Path, forks: Forks) -> Iterator[Callable[..., World]]:
    """Makes worlds. Each has its own folder, which `-c` names, and is closed after the test."""
    with ExitStack() as stack:

        def make(*accounts: Any, vaults: tuple[Any, ...] = ("main",), **options: Any) -> World:
            azure = stack.enter_context(running_azure(data(*accounts, vaults=vaults), **options))
            folder = tmp_path / f"world{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            return World(azure, folder, forks, by_path=True)

        yield make


@pytest.fixture(scope="session")
def keysync() -> Iterator[WarmKeysync]:
    """Starts keysync without the half second for its imports."""
    with warm_keysync(clean_environment()) as warm:
        yield warm
