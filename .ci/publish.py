"""Builds, signs and publishes the version that the tree has: python3 .ci/publish.py [--dry-run] [STAGE...]

  check    the tree is committed, its tag is the version's, CHANGELOG.md has that version     (always done first)
  build    dist/: sdist, wheel, twine's check, and the software bill of materials
  sign     a .sigstore.json beside each file of dist/, by cosign without a key: it asks for an identity (OIDC)
  upload   sdist and wheel to the package index that twine is set up for; .github/workflows/release.yml has the index ask
           for the workflow's identity instead
  image    the container image as $IMAGE:VERSION, pushed, signed and attested by its digest

Without a stage: all of them. --dry-run does the check and prints every other command instead of running it.
Variables: IMAGE, the image's name with its registry and without a tag; BASE, the Dockerfile's base image with a digest;
SOURCE, the address of the source; TOOLS=/path/to/venv, which has requirements/release.txt installed already.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess  # nosec B404  # runs the tools
import sys
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

ROOT: Final = Path(__file__).resolve().parent.parent
STAGES: Final = ("build", "sign", "upload", "image")


def fail(text: str) -> NoReturn:
    """Ends with 1."""
    sys.stderr.write(f"error: {text}\n")
    sys.exit(1)


def show(line: str) -> None:
    """Prints a line before what the next command prints."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def git(*arguments: str) -> str:
    """What git prints."""
    command = ["git", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()  # noqa: S603  # nosec B603


class Release:
    """One version on its way out. `scratch` is removed at the end."""

    def __init__(self, scratch: Path, *, dry_run: bool) -> None:
        self._scratch = scratch
        self._dry_run = dry_run
        self._version = ""
        self._epoch = ""
        self._tools = os.environ.get("TOOLS", "")

    def check(self) -> None:
        """The tree, its tag and the changelog agree on the version."""
        text = Path("keysync/__init__.py").read_text(encoding="utf-8")
        found = re.search(r'^__version__ = "(\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?)"$', text, re.MULTILINE)
        if found is None:
            fail("keysync/__init__.py has no version such as 1.2.3")
        version = self._version = found[1]
        if git("status", "--porcelain"):
            fail("the tree has changes that are not committed: git status")
        if f"v{version}" not in git("tag", "--points-at", "HEAD").splitlines():
            fail(f"the commit is not tagged v{version}, which keysync/__init__.py asks for: git tag --sign v{version}")
        changelog = Path("CHANGELOG.md").read_text(encoding="utf-8")
        if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}$", changelog, re.MULTILINE):
            fail(f"CHANGELOG.md has no line: ## [{version}] - YEAR-MONTH-DAY")
        self._epoch = os.environ["SOURCE_DATE_EPOCH"] = git("log", "-1", "--format=%ct")
        show(f"keysync {version}: committed, tagged, and in the changelog")

    def build(self) -> None:
        """Fills dist/."""
        self._bring_tools()
        self._run("rm", "-rf", "dist")
        # The sdist first, then the wheel from it, so that both have the same content.
        self._run(f"{self._tools}/bin/python", "-m", "build", "--no-isolation", "--outdir", "dist", ".")
        self._run(f"{self._tools}/bin/twine", "check", "--strict", *self._distributions())
        self._run("bash", ".ci/sbom", self._bill_of_materials(), self._distributions()[1])

    def sign(self) -> None:
        """Signs each file of dist/."""
        for file in (*self._distributions(), self._bill_of_materials()):
            bundle = ("--new-bundle-format", "--bundle", f"{file}.sigstore.json")
            self._run("cosign", "sign-blob", "--yes", *bundle, file)

    def upload(self) -> None:
        """Sends sdist and wheel to the package index."""
        self._bring_tools()
        self._run(f"{self._tools}/bin/twine", "upload", "--non-interactive", *self._distributions())

    def image(self) -> None:
        """Builds and pushes the image, and signs and attests its digest."""
        name = os.environ.get("IMAGE", "") or ("REGISTRY/keysync" if self._dry_run else "")
        base = os.environ.get("BASE", "")
        if not name:
            fail("IMAGE does not name the image to push")
        if "@sha256:" not in base:
            if not self._dry_run:
                fail("BASE does not name the base image by its digest, as docs/container.md shows")
            base = "python:3.11-slim@sha256:DIGEST"
        arguments = {
            "SOURCE_DATE_EPOCH": self._epoch,
            # By its digest, so that the signed image can be built again.
            "BASE": base,
            "VERSION": self._version,
            "REVISION": git("rev-parse", "HEAD"),
            "CREATED": datetime.fromtimestamp(int(self._epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "SOURCE": os.environ.get("SOURCE", ""),
        }
        options = [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
        tag = ("--tag", f"{name}:{self._version}")
        # Only the format of docker has a health check.
        self._run("podman", "build", "--format", "docker", "--timestamp", self._epoch, *options, *tag, ".")
        self._run("podman", "push", "--digestfile", str(self._scratch / "digest"), tag[1])
        # A tag can be moved afterwards, a digest cannot.
        digest = "sha256:DIGEST" if self._dry_run else (self._scratch / "digest").read_text(encoding="utf-8").strip()
        self._run("cosign", "sign", "--yes", f"{name}@{digest}")
        predicate = ("--type", "cyclonedx", "--predicate", self._bill_of_materials())
        self._run("cosign", "attest", "--yes", *predicate, f"{name}@{digest}")

    def _bring_tools(self) -> None:
        """An environment with requirements/release.txt, unless there is one."""
        if self._tools:
            return
        self._tools = str(self._scratch / "tools")
        self._run(sys.executable, "-m", "venv", self._tools)
        options = ("--quiet", "--disable-pip-version-check", "--require-hashes", "-r", "requirements/release.txt")
        self._run(f"{self._tools}/bin/pip", "install", *options)

    def _distributions(self) -> tuple[str, str]:
        stem = f"dist/keysync-{self._version}"
        return f"{stem}.tar.gz", f"{stem}-py3-none-any.whl"

    def _bill_of_materials(self) -> str:
        return f"dist/keysync-{self._version}.cdx.json"

    def _run(self, *command: str) -> None:
        """Runs a command, or prints it so that a shell could."""
        if self._dry_run:
            show(f"+ {shlex.join(command)}")
            return
        environ = {**os.environ, **({"TOOLS": self._tools} if self._tools else {})}
        code = subprocess.run(command, env=environ, check=False).returncode  # noqa: S603  # nosec B603
        if code:
            fail(f"{command[0]} ended with {code}")


def main(arguments: Iterable[str]) -> int:
    """The exit code."""
    given = list(arguments)
    if not set(given) <= {"--dry-run", "check", *STAGES}:
        sys.stderr.write(__doc__ or "")
        return 2
    stages = [each for each in given if each in STAGES]
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as scratch:
        release = Release(Path(scratch), dry_run="--dry-run" in given)
        release.check()
        for stage in STAGES if set(given) <= {"--dry-run"} else stages:
            getattr(release, stage)()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
