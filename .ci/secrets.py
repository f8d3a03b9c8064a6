"""Looks for secrets in the files below here that standard input names, NUL between them: by detect-secrets, and by the look of a Batch key.

Prints where, never what: file, line and kind. Ends with 1 for each that .ci/secrets.toml does not allow, and for an entry there
that nothing needs. ``--planted`` allows nothing, and ends with 1 unless every file holds a secret.
"""

from __future__ import annotations

import json
import re
import subprocess  # nosec B404  # runs detect-secrets
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

_ALLOWED: Final = Path(__file__).resolve().with_name("secrets.toml")
# 64 bytes in base64, wherever they stand: detect-secrets wants quotes around them.
_BATCH_KEY: Final = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{86}==")


@dataclass(frozen=True, slots=True)
class Finding:
    """A line that looks as if it held a secret."""

    path: str
    number: int
    kind: str
    line: str


def findings(paths: Sequence[str]) -> Iterator[Finding]:
    """What there is in `paths`; binary files are left out."""
    lines: dict[str, list[str]] = {}
    for path in paths:
        try:
            lines[path] = Path(path).read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError:
            continue
    # Without verification: that would send what it finds to whose secret it might be.
    command = [str(Path(sys.executable).with_name("detect-secrets")), "scan", "--all-files", "--no-verify", *lines]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603  # nosec B603
    for path, found in json.loads(told)["results"].items():
        for one in found if Path(path).resolve() != _ALLOWED else ():  # the list quotes what it allows
            number = one["line_number"]
            yield Finding(path, number, one["type"], lines[path][number - 1])
    for path, text in lines.items():
        for number, line in enumerate(text, 1):
            if _BATCH_KEY.search(line):
                yield Finding(path, number, "Batch account key", line)


def planted(paths: Sequence[str]) -> list[str]:
    """What is wrong where every one of `paths` is meant to hold a secret."""
    found = {each.path for each in findings(paths)}
    return [f"{path}: the secret that was planted there is not found" for path in paths if path not in found]


def problems(paths: Sequence[str]) -> list[str]:
    """What is found and not allowed, and what is allowed and not found."""
    allowed = tomllib.loads(_ALLOWED.read_text(encoding="utf-8"))["allowed"]
    used: set[int] = set()
    told = []
    for each in findings(paths):
        by = [
            at
            for at, one in enumerate(allowed)
            if fnmatchcase(each.path, one["path"]) and re.search(one["line"], each.line)
        ]
        used.update(by)
        if not by:
            told.append(f"{each.path}:{each.number}: {each.kind}; remove it, or say in {_ALLOWED.name} why it is none")
    unused = (one for at, one in enumerate(allowed) if at not in used)
    return [*told, *(f"{_ALLOWED.name}: nothing needs the entry for {one['path']}: {one['why']}" for one in unused)]


def main() -> int:
    """Prints what is wrong."""
    paths = [path.removeprefix("./") for path in sys.stdin.read().split("\0") if path]
    told = planted(paths) if "--planted" in sys.argv[1:] else problems(paths)
    sys.stderr.writelines(f"{each}\n" for each in told)
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
