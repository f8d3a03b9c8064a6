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
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from keysync.config.files import unreadable_hint
from keysync.config.printable import describe, dotted, is_secret_key, may_be_shown
from keysync.config.rules import FromEnvironment, Location
from keysync.errors import ConfigError, Finding
from keysync.files import secret_text

_Problem: TypeAlias = Any  # a MarkedYAMLError of ruamel.yaml
_Node: TypeAlias = Any  # a node of ruamel.yaml, which leaves the types of its attributes open

_MAX_VALUES = 1_000_000  # aliases can make a small file into an endless one
_SHORT: Final = 4  # a hidden value with fewer characters is masked only as a whole word
_TOO_DEEP: Final = "the values are nested too deeply"
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
    """A YAML file as plain values (`value`), with a `Spot` for each location and the findings so far.

    `reported` holds the locations that have a finding; validation adds none there. `hidden` are the values to mask.
    """

    file: str
    value: dict[str, Any] = field(default_factory=dict[str, Any])
    findings: list[Finding] = field(default_factory=list[Finding])
    spots: dict[Location, Spot] = field(default_factory=dict[Location, Spot])
    reported: set[Location] = field(default_factory=set[Location])
    hidden: list[Spot] = field(default_factory=list[Spot])

    def report(self, location: Location, message: str, hint: str | None = None) -> None:
        """Adds a finding at `location`."""
        self.reported.add(location)
        self.findings.append(self.finding(location, message, hint))

    def finding(self, location: Location, message: str, hint: str | None = None, *, at_key: bool = False) -> Finding:
        """A finding at `location`, or at the nearest parent that is in the file. Hidden values are masked."""
        present = location
        while present and present not in self.spots:
            present = present[:-1]
        line, column = self._position(present, at_key=at_key)
        return Finding(self.file, line, column, dotted(location), self._masked(message), hint and self._masked(hint))

    def found(self, location: Location) -> str:
        """The value at `location` for "found …", without anything that must not be shown."""
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
            value = str(spot.value)
            pattern = re.escape(value)
            if len(value) < _SHORT:
                pattern = rf"(?<![0-9A-Za-z]){pattern}(?![0-9A-Za-z])"
            if value.casefold() in text.casefold():
                text = re.sub(pattern, mask, text, flags=re.IGNORECASE)
        return text


def read_document(path: Path, *, environ: Mapping[str, str]) -> Document:
    """Reads `path` without validating it. The document keeps the findings so far.

    Raises ConfigError if there is no file, no text, no YAML or no mapping.
    """
    file = str(path)
    node = _compose(file, _read_text(path, file))
    document = Document(file)
    try:
        value = _Builder(document, environ).build((), None, node)
    except RecursionError:
        raise file_error(file, _TOO_DEEP) from None
    if not isinstance(value, dict):
        raise ConfigError([document.finding((), f"found {describe(value)}, expected a mapping of keys to values")])
    document.value = value
    return document


def file_error(file: str, message: str, hint: str | None = None) -> ConfigError:
    """A ConfigError about the file as a whole."""
    return ConfigError([Finding(file, None, None, "", message, hint)])


def _read_text(path: Path, file: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise file_error(file, "there is no such file") from None
    except IsADirectoryError:
        raise file_error(file, "found a folder, expected a YAML file") from None
    except UnicodeDecodeError as error:
        raise file_error(file, f"the file is not UTF-8: byte {error.start} cannot be decoded") from None
    except PermissionError:
        raise file_error(file, "the file cannot be read: Permission denied", unreadable_hint()) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path cannot be used"
        raise file_error(file, f"the file cannot be read: {reason}") from None


def _compose(file: str, text: str) -> _Node:
    parser: Any = YAML(typ="safe", pure=True)
    try:
        node = parser.compose(text)
    except MarkedYAMLError as error:
        raise ConfigError([_syntax_finding(file, text, error)]) from None
    except RecursionError:
        raise file_error(file, _TOO_DEEP) from None
    except YAMLError as error:
        character = getattr(error, "character", None)
        reason = f"the character {character!r} is not allowed" if character is not None else "it cannot be parsed"
        raise file_error(file, f"this is not YAML: {reason}") from None
    except Exception as error:  # noqa: BLE001 - the parser has bugs on odd input, and a user's file must not crash us
        raise file_error(file, f"this is not YAML: the parser failed with {type(error).__name__}") from None
    if node is None:
        raise file_error(file, "the file is empty, expected a mapping of keys to values")
    return node


def _syntax_finding(file: str, text: str, error: _Problem) -> Finding:
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


class _Builder:
    """Converts nodes of the parser to plain values, and records a `Spot` for each."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._open: set[int] = set()  # nodes that contain the current one, by id

    def build(self, location: Location, key: _Node, node: _Node) -> object:
        """The value of `node`, which is at `location` under `key`."""
        document = self._document
        if len(document.spots) >= _MAX_VALUES:
            raise file_error(document.file, f"with its aliases the file has more than {_MAX_VALUES} values")
        document.spots[location] = spot = Spot(node, key, (node.id == "scalar" and node.value) or None)
        kind = str(node.tag).removeprefix(_TAG_PREFIX)
        if id(node) in self._open:
            document.report(location, "found an alias of a value that contains this alias")
        elif kind not in _PLAIN_KINDS:
            document.report(location, "found a YAML tag, expected a plain value", "remove the part after the '!'")
        else:
            self._open.add(id(node))
            spot.value = self._value(location, spot, kind)
            self._open.discard(id(node))
            if spot.value and isinstance(spot.value, str) and (spot.variables or is_secret_key(location)):
                document.hidden.append(spot)
            return spot.value
        return None

    def _value(self, location: Location, spot: Spot, kind: str) -> object:
        node = spot.node
        if node.id == "mapping":
            return self._mapping(location, node)
        if node.id == "sequence":
            return [self.build((*location, index), None, item) for index, item in enumerate(node.value)]
        value = _parse_scalar(kind, str(node.value))
        return self._expanded(location, spot, value) if isinstance(value, str) and "${" in value else value

    def _mapping(self, location: Location, node: _Node) -> dict[str, Any]:
        entries: dict[str, tuple[_Node, _Node]] = {}
        merged: list[_Node] = []
        for key, value in node.value:
            name = str(key.value)
            if key.id != "scalar":
                self._report_key(location, key, "found a list or a mapping as a key, expected text")
            elif _is_merge(key):
                merged += value.value if value.id == "sequence" else [value]
            elif name in entries:
                first, _ = _position(entries[name][0])
                self._report_key((*location, name), key, f"duplicate key, first in line {first}", "keep one of them")
            else:
                entries[name] = (key, value)
        for source in merged:
            self._merge(location, source, entries)
        return {name: self.build((*location, name), key, value) for name, (key, value) in entries.items()}

    def _merge(self, location: Location, source: _Node, entries: dict[str, tuple[_Node, _Node]]) -> None:
        if source.id != "mapping" or id(source) in self._open:
            self._document.report(location, "found '<<' with a value that is no other mapping")
            return
        for key, value in source.value:
            if _is_merge(key):
                self._document.report(location, "found '<<' inside a mapping that is merged by '<<'")
            elif key.id == "scalar":
                entries.setdefault(str(key.value), (key, value))

    def _report_key(self, location: Location, key: _Node, message: str, hint: str | None = None) -> None:
        self._document.findings.append(Finding(self._document.file, *_position(key), dotted(location), message, hint))

    def _expanded(self, location: Location, spot: Spot, text: str) -> str:
        """`text` with its variables replaced; ``$${`` becomes ``${``. Values of variables are not expanded again."""

        def replace(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            name, closed = match[1], match[2]
            if not closed:
                self._document.report(location, "found '${' without its '}'", _ESCAPE_HINT)
            elif not _VARIABLE.fullmatch(name):
                message = "found '${…}' with text that is no name of a variable"
                self._document.report(location, message, _ESCAPE_HINT)
            else:
                spot.variables += (name,)
                if name in self._environ:
                    return secret_text(self._environ[name])
                shown = name if _SHOWN_VARIABLE.fullmatch(name) else "…"
                hint = f"set {shown}, or {_ESCAPE_HINT}"
                self._document.report(location, f"the environment variable {shown} is not set", hint)
            return ""

        value = FromEnvironment(_REFERENCE.sub(replace, text))
        value.variable = spot.variables[0] if spot.variables and text == f"${{{spot.variables[0]}}}" else None
        return value if spot.variables else str(value)


def _is_merge(key: _Node) -> bool:
    return key.id == "scalar" and key.value == "<<" and not key.style


def _parse_scalar(kind: str, text: str) -> str | float | bool | None:
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() in {"true", "yes", "on", "y"}
    try:
        if kind == "int":
            return int(text.replace("_", ""), 10 if text.lstrip("+-").isdecimal() else 0)
        if kind == "float":
            return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        return text  # Python does not know this form of number, or it has too many digits
    return text
