"""Prints docs/dependencies.md: why each dependency is there, and under which licence.

The reasons are the comments of pyproject.toml and requirements/*.in; the licences are what the installed packages say of
themselves, read from this interpreter's environment. Ends with 1, and says what is wrong, where a dependency has no reason, or
a licence is unknown or not allowed by [tool.keysync.licences] in pyproject.toml.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
_OPERATORS: Final = re.compile(r"\s+(?:AND|OR)\s+|[()]")
# What people write where an SPDX expression was meant.
_BY_TEXT: Final = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "isc license": "ISC",
    "mit license": "MIT",
}
# "BSD License" is not among them: it does not say which.
_BY_CLASSIFIER: Final = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "License :: OSI Approved :: Python Software Foundation License": "PSF-2.0",
}
_SPDX: Final = re.compile(r"[A-Za-z0-9.+-]+(?:\s+(?:AND|OR|WITH)\s+[A-Za-z0-9.+-]+)*")


@dataclass(frozen=True, slots=True)
class Direct:
    """A dependency that this project names itself, and the comment beside it."""

    name: str
    reason: str | None


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def settings() -> dict[str, Any]:
    """[tool.keysync.licences] of pyproject.toml."""
    found: dict[str, Any] = _pyproject()["tool"]["keysync"]["licences"]
    return found


def installed(path: list[str] | None = None) -> dict[str, Distribution]:
    """The packages of this environment, or of the folders in `path`, by normal name."""
    found = distributions() if path is None else distributions(path=path)
    return {normal(one.name): one for one in found}


def licence_of(name: str, packages: Mapping[str, Distribution]) -> str | None:
    """The SPDX expression of a package: what pyproject.toml says where its metadata is no help, else its metadata."""
    declared: dict[str, str] = settings()["declared"]
    if normal(name) in declared:
        return declared[normal(name)]
    package = packages.get(normal(name))
    return None if package is None else _declared(package)


def _declared(package: Distribution) -> str | None:
    metadata = package.metadata
    expressions: list[str] = metadata.get_all("License-Expression") or []
    if expressions:
        return expressions[0]
    text = " ".join(metadata.get_all("License") or []).strip()
    known = _BY_TEXT.get(text.lower())
    if known:
        return known
    classified = [_BY_CLASSIFIER.get(each) for each in metadata.get_all("Classifier") or []]
    # One word such as "MIT" is an identifier; a classifier is the better witness for longer text.
    if text and _SPDX.fullmatch(text):
        return text
    return next((each for each in classified if each), None)


def is_allowed(expression: str, allowed: Iterable[str]) -> bool:
    """Whether a licence is on the list: one of the sides of an OR is enough, of an AND it takes all."""
    names = set(allowed)
    sides = re.split(r"\s+OR\s+", expression) if "(" not in expression else [expression]
    return any(all(part in names for part in _OPERATORS.split(side) if part) for side in sides)


def locked(file: Path) -> list[str]:
    """The packages that a pinned requirements file installs, for every platform, as it spells them."""
    text = file.read_text(encoding="utf-8")
    return re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==", text, re.MULTILINE)


def direct(where: str) -> list[Direct]:
    """What ``dependencies``, an extra or a group of pyproject.toml names, in order, each with its comment."""
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    start = next(at for at, line in enumerate(lines) if re.match(rf"{re.escape(where)} = \[", line))
    found = []
    for line in lines[start + 1 :]:
        if line.startswith("]"):
            break
        entry = re.match(r'\s+"([A-Za-z0-9._-]+)[^"]*",?\s*(?:#\s*(.+))?$', line)
        if entry:
            found.append(Direct(entry[1], entry[2]))
    return found


def tools(file: Path) -> list[Direct]:
    """What a requirements/*.in names, each with its comment."""
    entries = re.findall(
        r"^([A-Za-z0-9][A-Za-z0-9._-]*)[^#\n]*(?:#\s*(.+))?$", file.read_text(encoding="utf-8"), re.MULTILINE
    )
    return [Direct(name, reason or None) for name, reason in entries]


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


ELSEWHERE = (
    ("chromium", "opens the status page in tests", "Debian"),
    ("prometheus, promtool", "scrape the metrics, and test the alerts", "Debian"),
    ("buildah, podman, crun, catatonit", "build and run the image", "Debian"),
    ("mmdebstrap", "makes the base of the image", "Debian"),
    ("iproute2", "enables loopback for the image without a network", "Debian"),
    ("actionlint", "checks workflows; version 1.7.12, by Go's checksum database", "Go's module proxy"),
)
"""Programs that are not on a Python package index: name, reason, source."""


class Page:
    """The page's text, and what is wrong with what it would say."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._packages = installed()
        self._settings = settings()
        self._used: set[str] = set()

    def render(self) -> str:
        """The whole page. `problems` is complete afterwards."""
        text = "\n".join(self._lines())
        unused = self._settings["exceptions"].keys() - self._used
        self.problems += [f"[tool.keysync.licences.exceptions] has {name}, which needs none" for name in sorted(unused)]
        return text + "\n"

    def _lines(self) -> Iterator[str]:
        runtime, shipped = direct("dependencies"), locked(ROOT / "requirements" / "image.txt")
        extras = {name: direct(name) for name in _pyproject()["project"]["optional-dependencies"]}
        named = {normal(one.name) for one in (*runtime, *(one for extra in extras.values() for one in extra))}
        yield "# Dependencies"
        yield ""
        yield "<!-- Made by: .venv/bin/python .ci/dependencies.py >docs/dependencies.md. A test compares the two. -->"
        yield ""
        yield "The reasons are the comments in `pyproject.toml`; licences are SPDX expressions. Versions and hashes are in"
        yield "`requirements/`. The software bill of materials of a release has both (`bash .ci/sbom`)."
        yield ""
        yield "## keysync itself"
        yield ""
        yield from self._table(runtime)
        for name, packages in extras.items():
            yield ""
            yield f"## The extra `{name}`"
            yield ""
            yield from self._table(packages)
        yield ""
        yield "## Indirect dependencies"
        yield ""
        yield "| package | licence |"
        yield "|---|---|"
        for package in sorted({normal(one) for one in shipped} - named):
            yield f"| {package} | {self._licence(package)} |"
        yield from self._behind_the_scenes()
        yield from self._rules()

    def _behind_the_scenes(self) -> Iterator[str]:
        yield ""
        yield "## Development and tests"
        yield ""
        yield "None of these is in the wheel. The image has a package of this list only if it is also an extra."
        yield ""
        yield from self._table(direct("dev"))
        yield ""
        yield "CI runs these as programs, each set in its own environment (`requirements/*.in`):"
        yield ""
        yield "| package | why | set |"
        yield "|---|---|---|"
        for file in sorted((ROOT / "requirements").glob("*.in")):
            for one in tools(file):
                yield f"| {one.name} | {self._reason(one, f'requirements/{file.name}')} | {file.stem} |"
        for name in locked(ROOT / "requirements" / "dev.txt"):
            self._licence(name)
        yield ""
        yield "CI takes these from elsewhere, in the current version:"
        yield ""
        yield "| program | why | from |"
        yield "|---|---|---|"
        yield from (f"| {name} | {why} | {source} |" for name, why, source in ELSEWHERE)

    def _rules(self) -> Iterator[str]:
        yield ""
        yield "## Licences"
        yield ""
        yield f"These licences are allowed: {', '.join(self._settings['allowed'])}. Exceptions:"
        yield ""
        yield "| package | reason for the exception |"
        yield "|---|---|"
        for name, why in sorted(self._settings["exceptions"].items()):
            yield f"| {name} | {why} |"

    def _table(self, packages: Iterable[Direct]) -> Iterator[str]:
        yield "| package | why | licence |"
        yield "|---|---|---|"
        for one in packages:
            yield f"| {one.name} | {self._reason(one, 'pyproject.toml')} | {self._licence(one.name)} |"

    def _reason(self, one: Direct, where: str) -> str:
        if one.reason is None:
            self.problems.append(f"{one.name}: {where} does not say why it is there; put a comment beside it")
        return (one.reason or "").replace("|", "\\|")

    def _licence(self, name: str) -> str:
        expression = licence_of(name, self._packages)
        if expression is None:
            self.problems.append(
                f"{name}: its licence is unknown; look it up and put it into [tool.keysync.licences.declared]"
            )
            return ""
        if normal(name) in self._settings["exceptions"]:
            self._used.add(normal(name))
        elif not is_allowed(expression, self._settings["allowed"]):
            self.problems.append(f"{name}: {expression} is not allowed by [tool.keysync.licences]")
        return expression


def main() -> int:
    """Prints the page on stdout, what is wrong on stderr."""
    page = Page()
    sys.stdout.write(page.render())
    for problem in page.problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if page.problems else 0


if __name__ == "__main__":
    sys.exit(main())
