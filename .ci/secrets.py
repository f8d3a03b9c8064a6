"""Searches the files that standard input names (separated by NUL) for secrets: with detect-secrets, and by the form of a Batch key.

Prints file, line and kind, never the text. Ends with 1 for each finding that .ci/secrets.toml does not allow, and for each entry
there that is not needed. ``--planted`` allows nothing, and ends with 1 unless every file contains a secret.
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
    """The findings in `paths`. Binary files are skipped."""
    lines: dict[str, list[str]] = {}
    for path in paths:
        try:
            lines[path] = Path(path).read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError:
            continue
    # Without verification, which would send each finding to the service of that secret.
    command = [str(Path(sys.executable).with_name("detect-secrets")), "scan", "--all-files", "--no-verify", *lines]
    messages = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603  # nosec B603
    for path, found in json.loads(messages)["results"].items():
        for one in found if Path(path).resolve() != _ALLOWED else ():  # the list quotes what it allows
            number = one["line_number"]
            yield Finding(path, number, one["type"], lines[path][number - 1])
    for path, text in lines.items():
        for number, line in enumerate(text, 1):
            if _BATCH_KEY.search(line):
                yield Finding(path, number, "Batch account key", line)


def planted(paths: Sequence[str]) -> list[str]:
    """The files of `paths` in which no secret was found, although each contains one."""
    found = {each.path for each in findings(paths)}
    return [f"{path}: the secret that was planted there is not found" for path in paths if path not in found]


def problems(paths: Sequence[str]) -> list[str]:
    """What is found and not allowed, and what is allowed and not found."""
    allowed = tomllib.loads(_ALLOWED.read_text(encoding="utf-8"))["allowed"]
    used: set[int] = set()
    messages = []
    for each in findings(paths):
        by = [
            at
            for at, one in enumerate(allowed)
            if fnmatchcase(each.path, one["path"]) and re.search(one["line"], each.line)
        ]
        used.update(by)
        if not by:
            messages.append(
                f"{each.path}:{each.number}: {each.kind}; remove it, or say in {_ALLOWED.name} why it is none"
            )
    unused = (one for at, one in enumerate(allowed) if at not in used)
    return [*messages, *(f"{_ALLOWED.name}: nothing needs the entry for {one['path']}: {one['why']}" for one in unused)]


def main() -> int:
    """Prints what is wrong."""
    paths = [path.removeprefix("./") for path in sys.stdin.read().split("\0") if path]
    messages = planted(paths) if "--planted" in sys.argv[1:] else problems(paths)
    sys.stderr.writelines(f"{each}\n" for each in messages)
    return 1 if messages else 0


if __name__ == "__main__":
    sys.exit(main())
