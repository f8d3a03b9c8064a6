"""podman and buildah with their own storage, below the folder that `.ci/image` makes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

BASE = "python:3.11-slim"
"""The base image, as the Dockerfile names it."""


class Store:
    """Runs podman and buildah. A call that fails is an assertion error with its output."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        containers, registries = folder / "containers.conf", folder / "registries.conf"
        self._environ = {
            **os.environ,
            "CONTAINERS_CONF": str(containers),
            "CONTAINERS_REGISTRIES_CONF": str(registries),
        }
        if not containers.exists():
            # A container is a plain process here: no cgroup, no limit above this machine's, no lock in shared memory.
            containers.write_text(
                '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
                '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nlock_type = "file"\nruntime = "crun"\n'
                f'tmp_dir = "{folder / "libpod"}"\n',
                encoding="utf-8",
            )
            registries.write_text("unqualified-search-registries = []\n", encoding="utf-8")  # nothing is ever pulled
            (folder / "driver").write_text(_driver(folder), encoding="utf-8")
        driver = (folder / "driver").read_text(encoding="utf-8")
        self._options = ["--root", f"{folder}/storage", "--runroot", f"{folder}/run", "--storage-driver", driver]

    def run(self, tool: str, *arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """A finished podman or buildah, whatever its exit code."""
        command = [tool, *self._options, *arguments]
        return subprocess.run(
            command,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def podman(self, *arguments: str, timeout: float = 600) -> str:
        """What podman prints on stdout."""
        return _good(self.run("podman", *arguments, timeout=timeout))

    def buildah(self, *arguments: str) -> str:
        """What buildah prints on stdout."""
        return _good(self.run("buildah", *arguments))

    def image(self, name: str) -> dict[str, Any]:
        """What buildah knows of an image: its settings under `OCIv1`, its history, its layers."""
        found: dict[str, Any] = json.loads(self.buildah("inspect", "--type", "image", f"localhost/{name}"))
        return found


def _good(ended: subprocess.CompletedProcess[str]) -> str:
    assert ended.returncode == 0, f"{ended.args} ended with {ended.returncode}\n{ended.stdout}{ended.stderr}"
    return ended.stdout.strip()


def _driver(folder: Path) -> str:
    """`overlay` where this machine can mount one, else `vfs`, which works everywhere and copies each layer."""
    trial = folder / "overlay"
    parts = {name: trial / name for name in ("lowerdir", "upperdir", "workdir")}
    for path in (*parts.values(), trial / "merged"):
        path.mkdir(parents=True)
    options = ",".join(f"{name}={path}" for name, path in parts.items())
    mount = ["mount", "-t", "overlay", "overlay", str(trial / "merged"), "-o", options]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        return "vfs"
    subprocess.run(["umount", str(trial / "merged")], check=True)
    return "overlay"
