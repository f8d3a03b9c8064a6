"""Runs keysync in containers as restricted as in docs/container.md, and lets no output pass that has a secret in it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.image.store import Store

SECURE = (
    *(
        "--pull=never",
        "--network=host",
        "--cgroups=disabled",
        "--read-only",
        "--read-only-tmpfs=false",
        "--cap-drop=ALL",
    ),
    *("--security-opt=no-new-privileges", "--health-interval=disable"),
)


@dataclass(frozen=True)
class Ended:
    """A container that has ended. `log` is both of its streams."""

    code: int
    stdout: str
    log: str


class Containers:
    """Containers of one image. `secrets` are texts that no output may have."""

    def __init__(self, store: Store, image: str, secrets: Sequence[str]) -> None:
        self._store = store
        self._image = image
        self._secrets = secrets
        self._numbers = count()

    def run(self, *arguments: str, config: Path | None = None) -> Ended:
        """Runs a command of keysync until it ends, for at most 60 s."""
        name = f"one-off-{next(self._numbers)}"
        options = ["run", "--name", name, *SECURE, *_mounted(config), self._image, *arguments]
        ended = self._store.run("podman", *options, timeout=60)
        return Ended(ended.returncode, self.checked(ended.stdout), self.checked(self.log(name) + ended.stderr))

    def start(self, *arguments: str, config: Path) -> str:
        """Starts a command of keysync; the container's name."""
        name = f"started-{next(self._numbers)}"
        self._store.podman("run", "--detach", "--name", name, *SECURE, *_mounted(config), self._image, *arguments)
        return name

    def stop(self, name: str, signal: str) -> Ended:
        """Sends a signal, on which the container has to end within 10 s."""
        started = time.monotonic()
        self._store.podman("kill", "--signal", signal, name)
        code = int(self._store.podman("wait", name, timeout=20))
        assert time.monotonic() - started < 10
        return Ended(code, "", self.log(name))

    def log(self, name: str) -> str:
        """Both streams of a container so far."""
        ended = self._store.run("podman", "logs", name)
        assert ended.returncode == 0, f"{name} was not started: {ended.stderr}"
        return self.checked(ended.stdout + ended.stderr)

    def exec(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """A command that has run in a container."""
        ended = self._store.run("podman", "exec", name, *command)
        self.checked(ended.stdout + ended.stderr)
        return ended

    def checked(self, text: str) -> str:
        """The text, which must have no secret in it."""
        assert not any(secret in text for secret in self._secrets), "an output has a key or secret in it"
        return text


def _mounted(config: Path | None) -> list[str]:
    return ["--volume", f"{config}:/etc/keysync:ro"] if config else []
