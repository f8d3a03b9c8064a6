"""Reads a YAML file as plain values with their positions, replaces ``${NAME}``, and reports everything that is wrong in it.

The nodes of ruamel.yaml's composer keep the position and the text of each value. Its round-trip loader keeps positions too,
but it stops at the first duplicate key and repeats the value in its message, and it changes what users write without quotes:
2024-07-01 becomes a date, and 7.10 the number 7.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from keysync.config.printable import describe, dotted, is_secret_key, may_be_shown
from keysync.config.rules import FromEnvironment, Location, Problem
from keysync.errors import ConfigError, Finding
from keysync.files import secret_text, unreadable_hint

_MarkedError: TypeAlias = Any  # a MarkedYAMLError of ruamel.yaml
_Node: TypeAlias = Any  # a node of ruamel.yaml, which leaves the types of its attributes open

_MAX_VALUES = 1_000_000  # aliases can make a small file into an endless one
_SHORT: Final = 4  # a hidden value with fewer characters is masked only as a whole word
_TOO_DEEP: Final = "the values are nested too deeply"
_UNUSABLE: Final[dict[type, str]] = {
    FileNotFoundError: "there is no such file",
    IsADirectoryError: "found a folder, expected a YAML file",
}
_TAG_PREFIX: Final = "tag:yaml.org,2002:"
_PLAIN_KINDS: Final = frozenset({"str", "int", "float", "bool", "null", "timestamp", "map", "seq", "value", "merge"})
_SHOWN_QUOTES: Final = re.compile(r"<[a-z ]+>|[^\w\s]|\\\\t")
_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHOWN_VARIABLE: Final = re.compile(r"[A-Z0-9_]+|[a-z_]+")  # a name in mixed case may be a secret
_ESCAPE_HINT: Final = "write $${ for the literal text ${"


@dataclass(slots=True)
class Spot:
    """A value, the nodes of the parser that it and its key come from, and the environment variables in it."""

    node: _Node
    key: _Node = None
    value: object = None
    variables: tuple[str, ...] = ()


@dataclass(slots=True)
class Document:
    """A YAML file as plain values (`value`), with a `Spot` for each location and the findings so far. `build` fills it.

    `reported` holds the locations that have a finding; validation adds none there. `hidden` are the values to mask.
    """

    file: str
    environ: Mapping[str, str]
    value: dict[str, Any] = field(default_factory=dict[str, Any])
    findings: list[Finding] = field(default_factory=list[Finding])
    spots: dict[Location, Spot] = field(default_factory=dict[Location, Spot])
    reported: set[Location] = field(default_factory=set[Location])
    hidden: list[Spot] = field(default_factory=list[Spot])
    _open: set[int] = field(default_factory=set[int])  # nodes that contain the current one, by id

    def report(self, location: Location, problem: Problem) -> None:
        """Adds a finding at `location`."""
        self.reported.add(location)
        self.findings.append(self.finding(location, problem))

    def finding(self, location: Location, problem: Problem, *, at_key: bool = False) -> Finding:
        """A finding at `location`, or at the nearest parent that is in the file. Hidden values are masked."""
        present = location
        while present and present not in self.spots:
            present = present[:-1]
        message = problem.message
        if problem.is_expectation:
            found = "a key that is not shown" if at_key else self._found(location)
            message = f"found {found}, expected {message}"
        hint = problem.hint and self._masked(problem.hint)
        return Finding(
            self.file, *self._position(present, at_key=at_key), dotted(location), self._masked(message), hint
        )

    def _found(self, location: Location) -> str:
        """The value at `location`, without anything that must not be shown."""
        spot = self.spots.get(location)
        if spot is None:
            return "nothing"
        if spot.variables:
            return "the value of " + " and ".join(f"${{{name}}}" for name in spot.variables)
        may_be_secret = type(spot.value) not in {dict, list, bool, type(None)}
        hidden = may_be_secret and not may_be_shown(location, spot.value)
        return "a value that is not shown" if hidden else describe(spot.value)

    def _position(self, location: Location, *, at_key: bool) -> tuple[int | None, int | None]:
        spot = self.spots.get(location)
        if spot is None:
            return None, None
        # A block starts on the line after its key, and an empty value has no position: readers look for the key.
        wants_key = at_key or spot.value is None or isinstance(spot.value, (dict, list))
        return _position(spot.key if wants_key and spot.key is not None else spot.node)

    def _masked(self, text: str) -> str:
        """Masks hidden values in `text`: a check may have put one there."""
        for spot in self.hidden:
            mask = f"${{{spot.variables[0]}}}" if spot.variables else "…"
            value = re.escape(str(spot.value))
            pattern = value if len(value) >= _SHORT else rf"(?<![0-9A-Za-z]){value}(?![0-9A-Za-z])"
            text = re.sub(pattern, mask, text, flags=re.IGNORECASE)
        return text

    def build(self, location: Location, key: _Node, node: _Node) -> object:
        """Converts a node of the parser, which is at `location` under `key`, to a plain value, and records its `Spot`."""
        if len(self.spots) >= _MAX_VALUES:
            raise file_error(self.file, f"with its aliases the file has more than {_MAX_VALUES} values")
        self.spots[location] = spot = Spot(node, key, (node.id == "scalar" and node.value) or None)
        kind = str(node.tag).removeprefix(_TAG_PREFIX)
        if id(node) in self._open:
            self.report(location, Problem("found an alias of a value that contains this alias"))
            return None
        if kind not in _PLAIN_KINDS:
            problem = Problem("found a YAML tag, expected a plain value", "remove the part after the '!'")
            self.report(location, problem)
            return None
        self._open.add(id(node))
        spot.value = self._value(location, spot, kind)
        self._open.discard(id(node))
        if spot.value and isinstance(spot.value, str) and (spot.variables or is_secret_key(location)):
            self.hidden.append(spot)
        return spot.value

    def _value(self, location: Location, spot: Spot, kind: str) -> object:
        node = spot.node
        if node.id == "mapping":
            entries = self._entries(location, node).items()
            return {name: self.build((*location, name), key, value) for name, (key, value) in entries}
        if node.id == "sequence":
            return [self.build((*location, index), None, item) for index, item in enumerate(node.value)]
        value = _parse_scalar(kind, str(node.value))
        return self._expanded(location, spot, value) if isinstance(value, str) and "${" in value else value

    def _entries(self, location: Location, node: _Node) -> dict[str, tuple[_Node, _Node]]:
        """The keys of a mapping with their nodes. Keys of its own win over keys that ``<<`` adds."""
        entries: dict[str, tuple[_Node, _Node]] = {}
        merged: list[_Node] = []
        for key, value in node.value:
            name = str(key.value)
            if key.id != "scalar":
                self._report_key(location, key, "found a list or a mapping as a key, expected text")
            elif name == "<<" and not key.style:
                merged += value.value if value.id == "sequence" else [value]
            elif name in entries:
                first, _ = _position(entries[name][0])
                self._report_key((*location, name), key, f"duplicate key, first in line {first}", "keep one of them")
            else:
                entries[name] = (key, value)
        for source in merged:
            if source.id != "mapping":
                self.report(location, Problem("found '<<' with a value that is no mapping"))
                continue
            for key, value in source.value:
                entries.setdefault(str(key.value), (key, value))
        return entries

    def _report_key(self, location: Location, key: _Node, message: str, hint: str | None = None) -> None:
        self.findings.append(Finding(self.file, *_position(key), dotted(location), message, hint))

    def _expanded(self, location: Location, spot: Spot, text: str) -> str:
        """`text` with its variables replaced; ``$${`` becomes ``${``. Values of variables are not expanded again."""

        def replace(match: re.Match[str]) -> str:
            name, closed = match.groups()
            if name is None:
                return "${"
            if not closed:
                problem = Problem("found '${' without its '}'", _ESCAPE_HINT)
            elif not _VARIABLE.fullmatch(name):
                problem = Problem("found '${…}' with text that is no name of a variable", _ESCAPE_HINT)
            else:
                spot.variables += (name,)
                if name in self.environ:
                    return secret_text(self.environ[name])
                shown = name if _SHOWN_VARIABLE.fullmatch(name) else "…"
                problem = Problem(f"the environment variable {shown} is not set", f"set {shown}, or {_ESCAPE_HINT}")
            self.report(location, problem)
            return ""

        value = FromEnvironment(_REFERENCE.sub(replace, text))
        value.variable = spot.variables[0] if spot.variables and text == f"${{{spot.variables[0]}}}" else None
        return value if spot.variables else str(value)


def read_document(path: Path, *, environ: Mapping[str, str]) -> Document:
    """Reads `path` without validating it. The document keeps the findings so far.

    Raises ConfigError if there is no file, no text, no YAML or no mapping.
    """
    file = str(path)
    node = _compose(file, _read_text(path, file))
    document = Document(file, environ)
    try:
        value = document.build((), None, node)
    except RecursionError:
        raise file_error(file, _TOO_DEEP) from None
    if not isinstance(value, dict):
        problem = Problem(f"found {describe(value)}, expected a mapping of keys to values")
        raise ConfigError([document.finding((), problem)])
    document.value = value
    return document


def file_error(file: str, message: str, hint: str | None = None) -> ConfigError:
    """A ConfigError about the file as a whole."""
    return ConfigError([Finding(file, None, None, "", message, hint)])


def _read_text(path: Path, file: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise file_error(file, f"the file is not UTF-8: byte {error.start} cannot be decoded") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path cannot be used"
        hint = unreadable_hint() if isinstance(error, PermissionError) else None
        message = _UNUSABLE.get(type(error), f"the file cannot be read: {reason}")
        raise file_error(file, message, hint) from None


def _compose(file: str, text: str) -> _Node:
    parser: Any = YAML(typ="safe", pure=True)
    try:
        node = parser.compose(text)
    except MarkedYAMLError as error:
        raise ConfigError([_syntax_finding(file, text, error)]) from None
    except RecursionError:
        raise file_error(file, _TOO_DEEP) from None
    except Exception as error:  # noqa: BLE001 - the parser has bugs on odd input, and a user's file must not crash us
        character = getattr(error, "character", None)
        bug = f"the parser failed with {type(error).__name__}"
        reason = bug if character is None else f"the character {character!r} is not allowed"
        raise file_error(file, f"this is not YAML: {reason}") from None
    if node is None:
        raise file_error(file, "the file is empty, expected a mapping of keys to values")
    return node


def _syntax_finding(file: str, text: str, error: _MarkedError) -> Finding:
    mark = error.problem_mark or error.context_mark
    reason = (error.problem or error.context or "it cannot be parsed").splitlines()[0]
    # The parser quotes an alias or a tag from the file, which may be an unquoted password.
    reason = re.sub(r"(alias|anchor|tag|handle|directive).*", r"\1", reason)
    hint = "indent with spaces, not tabs" if "\\t" in reason else None
    # Other quotes hold a character or a word of the file, or a token of YAML.
    reason = re.sub(r"'([^']*)'", lambda quote: quote[0] if _SHOWN_QUOTES.fullmatch(quote[1]) else "'…'", reason)
    if mark is not None and any("${" in line for line in text.split("\n")[mark.line : mark.line + 1]):
        hint = 'put it in quotes inside { } or [ ]: "${NAME}"'
    line, column = (None, None) if mark is None else (mark.line + 1, mark.column + 1)
    return Finding(file, line, column, "", f"this is not YAML: {reason}", hint)


def _position(node: _Node) -> tuple[int, int]:
    """Line and column of the start of a node, from 1."""
    return node.start_mark.line + 1, node.start_mark.column + 1


def _parse_scalar(kind: str, text: str) -> str | float | bool | None:
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() in {"true", "yes", "on", "y"}
    try:
        if kind == "int":
            return int(text.replace("_", ""), 10 if text.lstrip("+-").isdecimal() else 0)
        return float(text.replace("_", "")) if kind == "float" else text
    except ValueError:
        return text  # Python does not know this form of number, or it has too many digits
