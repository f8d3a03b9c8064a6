"""Builds the image from the tree, as docs/container.md does, on a base of Debian's Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.image.store import BASE, Store

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Stamp:
    """What a build writes into the image's labels and times."""

    version: str
    revision: str
    epoch: str

    @property
    def created(self) -> str:
        """`epoch`, seconds since 1970, as RFC 3339."""
        return datetime.fromtimestamp(int(self.epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def stamp(version: str) -> Stamp:
    """The stamp of this commit; a fixed one outside a repository."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct") or "1700000000"
    return Stamp(version, _git("rev-parse", "HEAD") or "unknown", epoch)


def _git(*arguments: str) -> str:
    ended = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return ended.stdout.strip() if ended.returncode == 0 else ""


def import_base(store: Store, tar: Path) -> None:
    """Gives the root file system in `tar` the name of the base image."""
    store.podman("import", "--quiet", str(tar), f"localhost/{BASE}")


def pip_settings() -> dict[str, str]:
    """How this machine's pip reaches its index, by setting."""
    output = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    return dict(re.findall(r"^(?:global|install|:env:)\.(.*)='(.*)'$", output.stdout, re.MULTILINE))


def _secrets(folder: Path) -> list[str]:
    """Options that hand pip's settings to a build as secrets, which are in no layer and in no history."""
    settings = pip_settings()
    lines = ["[global]"]
    lines += [
        f"{name} = {settings[name]}"
        for name in ("index-url", "extra-index-url", "trusted-host", "proxy")
        if name in settings
    ]
    (folder / "pip-cert").touch()
    if "cert" in settings:
        shutil.copyfile(settings["cert"], folder / "pip-cert")
        lines.append("cert = /run/secrets/pip-cert")
    (folder / "pip.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [part for name in ("pip.conf", "pip-cert") for part in ("--secret", f"id={name},src={folder / name}")]


def build(store: Store, tag: str, stamped: Stamp) -> None:
    """Builds localhost/keysync:TAG."""
    arguments = {
        "VERSION": stamped.version,
        "REVISION": stamped.revision,
        "CREATED": stamped.created,
        "SOURCE_DATE_EPOCH": stamped.epoch,
    }
    options = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
    store.buildah(
        *["bud", "--quiet", "--isolation", "chroot", "--format", "docker", "--pull-never", "--layers=false"],
        *["--timestamp", stamped.epoch, *_secrets(store.folder), *options],
        *["--tag", f"localhost/keysync:{tag}", str(ROOT)],
    )
