"""Looks for faults that an attacker could use in code, scripts, Dockerfiles and workflows, and for secrets in the tree.

`nox -s security` runs it with the programs of requirements/security.txt beside the interpreter. Go builds actionlint, and checks
what it loads against its checksum database; ACTIONLINT=FILE names a program to use instead. Ends with 1 where a check fails, and
with 75 where actionlint could not be had and all others passed.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess  # nosec B404  # runs the tools
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
BIN: Final = Path(sys.executable).parent
ACTIONLINT: Final = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
CANNOT: Final = 75
_PRUNED: Final = re.compile(r"\.git|\.venv|\.nox|\..*_cache|__pycache__|\.hypothesis")
_SHELL: Final = re.compile(rb"#!.*[/ ](ba|da|k)?sh(\s|$)")
_SECRETS: Final = (sys.executable, str(ROOT / ".ci" / "secrets.py"))


@dataclass(frozen=True, slots=True)
class Check:
    """A command that must end with 0. `stdin` is its input."""

    name: str
    command: Sequence[str]
    stdin: str = ""
    environ: Mapping[str, str] | None = None

    def passes(self) -> bool:
        """Runs it: one line if it passes, else also all that it prints."""
        started = time.monotonic()
        ended = run(self.command, self.stdin, self.environ)
        if ended.returncode:
            show(f"FAILED  {self.name}\n{ended.stdout}")
        else:
            show(f"passed  {self.name:<44} {time.monotonic() - started:3.0f} s")
        return ended.returncode == 0


def show(line: str) -> None:
    """Prints a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run(
    command: Sequence[str], stdin: str = "", environ: Mapping[str, str] | None = None, folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """A finished program. Its stdout has its stderr too."""
    return subprocess.run(  # noqa: S603  # nosec B603  # commands of this file
        command,
        cwd=folder,
        env={**os.environ, **(environ or {})},
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def tree(folder: Path = ROOT) -> Iterator[Path]:
    """Every file, relative to the root, except ignored files and lock files, which contain only hashes."""
    for path in sorted(folder.iterdir()):
        relative = path.relative_to(ROOT)
        if _PRUNED.fullmatch(path.name) or str(relative) in {"dist", "build"}:
            continue
        if path.is_dir() and not path.is_symlink():
            yield from tree(path)
        elif path.is_file() and not path.is_symlink() and not relative.match("requirements/*.txt"):
            yield relative


def is_script(path: Path) -> bool:
    """Whether a file is a shell script, by its name or its first line."""
    with (ROOT / path).open("rb") as file:
        return path.suffix == ".sh" or _SHELL.match(file.readline(200)) is not None


def is_dockerfile(path: Path) -> bool:
    """Whether a file builds an image."""
    return path.name.startswith(("Dockerfile", "Containerfile")) or path.suffix == ".Dockerfile"


def checks() -> Iterator[Check]:
    """All but actionlint."""
    files = list(tree())
    bandit = (str(BIN / "bandit"), "--configfile", "pyproject.toml", "--quiet", "--recursive")
    yield Check("bandit: keysync, .ci and noxfile.py", (*bandit, "keysync", ".ci", "noxfile.py"))
    # The tests start processes and make up passwords on purpose, so only what weighs more counts there.
    yield Check("bandit: tests", (*bandit, "tests", "--severity-level", "medium"))
    yield Check("detect-secrets: no secret in the tree", _SECRETS, "\0".join(map(str, files)))
    scripts = [str(path) for path in files if is_script(path)]
    yield Check("shellcheck: every shell script", (str(BIN / "shellcheck"), *scripts))
    dockerfiles = [str(path) for path in files if is_dockerfile(path)]
    yield Check("hadolint: every Dockerfile", (str(BIN / "hadolint"), *dockerfiles))
    zizmor = ("--offline", "--no-progress", "--quiet", "--persona", "pedantic", ".github")
    yield Check("zizmor: workflows", (str(BIN / "zizmor"), *zizmor))


def planted_secrets_are_found(folder: Path) -> bool:
    """Checks the search for secrets: each way that a made-up one could slip in is found, and no entry of the list allows it."""
    name = "detect-secrets: planted ones are found"
    # The module `secrets` is hidden by .ci/secrets.py.
    key, word = base64.b64encode(os.urandom(64)).decode(), base64.urlsafe_b64encode(os.urandom(30)).decode()
    planted = {
        "quoted.py": f'PRIMARY = "{key}"\n',
        "plain.yaml": f"primary: {key}\n",
        "prose.md": f"The key is {key}, keep it.\n",
        "environment.sh": f"export AZURE_CLIENT_SECRET={word}\n",
        "settings.json": f'{{"client_secret": "{word}"}}\n',
    }
    for path, text in planted.items():
        (folder / path).write_text(text, encoding="utf-8")
    found = run((*_SECRETS, "--planted"), "\0".join(planted), folder=folder)
    listed = run(_SECRETS, "\0".join(planted), folder=folder)
    allowed = [path for path in planted if f"{path}:1: " not in listed.stdout]
    if found.returncode or not listed.returncode or allowed:
        show(f"FAILED  {name}\n{found.stdout}{listed.stdout}not found: {', '.join(allowed)}")
        return False
    show(f"passed  {name}")
    return True


def actionlint(folder: Path) -> str | None:
    """The program, built by Go in `folder` unless ACTIONLINT names one; None, with the reason on stdout, where it cannot be had."""
    if given := os.environ.get("ACTIONLINT"):
        return given
    go = shutil.which("go")
    if go is None:
        show("skipped: actionlint, which needs Go")
        return None
    # What Go loads is read-only unless -modcacherw says otherwise, and then it could not be removed.
    environ = {
        "GOBIN": str(folder / "bin"),
        "GOPATH": str(folder),
        "GOCACHE": str(folder / "cache"),
        "GOFLAGS": "-modcacherw",
    }
    ended = run((go, "install", ACTIONLINT), environ=environ)
    if ended.returncode:
        show(f"skipped: actionlint, which Go could not build\n{ended.stdout}")
        return None
    return str(folder / "bin" / "actionlint")


def main() -> int:
    """The exit code."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "planted").mkdir()
        passed = [each.passes() for each in checks()]
        passed.append(planted_secrets_are_found(scratch / "planted"))
        program = actionlint(scratch / "go")
        if program:
            workflows = [str(path) for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))]
            # It calls shellcheck.
            path = {"PATH": f"{BIN}:{os.environ['PATH']}"}
            passed.append(Check("actionlint: workflows", (program, "-no-color", *workflows), environ=path).passes())
    if not all(passed):
        return 1
    return 0 if program else CANNOT


if __name__ == "__main__":
    sys.exit(main())
