"""Reads a YAML file into a `Document` or a pydantic model, or reports everything that is wrong in it with its position.

It knows no particular file: `load_document` takes the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from keysync.config import yaml_nodes
from keysync.config.document import Document, Spot, file_error
from keysync.config.environment import Expansion
from keysync.config.files import unreadable_hint
from keysync.config.printable import Location, describe, dotted
from keysync.config.validate import validate
from keysync.config.yaml_nodes import Node
from keysync.errors import ConfigError, Finding

M = TypeVar("M", bound=BaseModel)

_MAX_VALUES = 1_000_000  # aliases can make a small file into an endless one
_SHOWN_QUOTES: Final = re.compile(r"<[a-z ]+>|[^\w\s]|\\\\t")
_TOO_DEEP: Final = "the values are nested too deeply"


def load_document(path: Path, model: type[M], *, environ: Mapping[str, str]) -> M:
    """Reads the YAML file `path`, replaces ``${NAME}`` by variables of `environ`, and validates the result with `model`.

    Raises ConfigError with every finding of the file, by line.
    """
    return validate(read_document(path, environ=environ), model)


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
    except _TooManyValuesError:
        raise file_error(file, f"with its aliases the file has more than {_MAX_VALUES} values") from None
    if not isinstance(value, dict):
        raise ConfigError([document.finding((), f"found {describe(value)}, expected a mapping of keys to values")])
    document.value = value
    return document


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


def _compose(file: str, text: str) -> Node:
    try:
        node = yaml_nodes.compose(text)
    except MarkedYAMLError as error:
        raise ConfigError([_syntax_finding(file, text, yaml_nodes.syntax_problem(error))]) from None
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


def _syntax_finding(file: str, text: str, error: yaml_nodes.SyntaxProblem) -> Finding:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (None, None)
    reason = (error.problem or error.context or "it cannot be parsed").splitlines()[0]
    # The parser quotes an alias or a tag from the file, which may be an unquoted password.
    reason = re.sub(r"(alias|anchor|tag|handle|directive).*", r"\1", reason)
    hint = "indent with spaces, not tabs" if "\\t" in reason else None
    # Other quotes hold a character or a word of the file, or a token of YAML.
    reason = re.sub(r"'([^']*)'", lambda quote: quote[0] if _SHOWN_QUOTES.fullmatch(quote[1]) else "'…'", reason)
    if mark is not None and any("${" in line for line in text.split("\n")[mark.line : mark.line + 1]):
        hint = 'put it in quotes inside { } or [ ]: "${NAME}"'
    return Finding(file, line, column, "", f"this is not YAML: {reason}", hint)


class _TooManyValuesError(Exception):
    """The file has more than `_MAX_VALUES` values."""


class _Builder:
    """Converts nodes of the parser to plain values, and records the position of each."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._open: set[int] = set()  # nodes that contain the current one, by id

    def build(self, location: Location, key: Node | None, node: Node) -> object:
        """The value of `node`, which is at `location` under `key`."""
        if len(self._document.spots) >= _MAX_VALUES:
            raise _TooManyValuesError
        spot = Spot(*yaml_nodes.position(node))
        spot.value = yaml_nodes.scalar(node) or None
        if key is not None:
            spot.key_line, spot.key_column = yaml_nodes.position(key)
        self._document.spots[location] = spot
        if id(node) in self._open:
            self._document.report(location, "found an alias of a value that contains this alias")
            return None
        kind = yaml_nodes.kind_of(node)
        if kind is None:
            self._document.report(location, "found a YAML tag, expected a plain value", "remove the part after the '!'")
            return None
        self._open.add(id(node))
        spot.value = self._value(location, spot, node, kind)
        self._open.discard(id(node))
        return spot.value

    def _value(self, location: Location, spot: Spot, node: Node, kind: str) -> object:
        if (pairs := yaml_nodes.pairs(node)) is not None:
            return self._mapping(location, pairs)
        if (items := yaml_nodes.items(node)) is not None:
            return [self.build((*location, index), None, item) for index, item in enumerate(items)]
        spot.text = str(node.value)
        value = _parse_scalar(kind, spot.text)
        return self._expand(location, spot, value) if isinstance(value, str) else value

    def _mapping(self, location: Location, pairs: Sequence[tuple[Node, Node]]) -> dict[str, Any]:
        entries: dict[str, tuple[Node, Node]] = {}
        merged: list[Node] = []
        for key, value in pairs:
            name = yaml_nodes.scalar(key)
            if name is None:
                self._report_key(location, key, "found a list or a mapping as a key, expected text")
            elif yaml_nodes.is_merge_key(key):
                sources = yaml_nodes.items(value)
                merged += [value] if sources is None else sources
            elif name in entries:
                first, _ = yaml_nodes.position(entries[name][0])
                self._report_key((*location, name), key, f"duplicate key, first in line {first}", "keep one of them")
            else:
                entries[name] = (key, value)
        self._merge(location, merged, entries)
        return {name: self.build((*location, name), key, value) for name, (key, value) in entries.items()}

    def _merge(self, location: Location, merged: Sequence[Node], entries: dict[str, tuple[Node, Node]]) -> None:
        for source in merged:
            pairs = yaml_nodes.pairs(source)
            if pairs is None or id(source) in self._open:
                self._document.report(location, "found '<<' with a value that is no other mapping")
                continue
            for key, value in pairs:
                name = yaml_nodes.scalar(key)
                if yaml_nodes.is_merge_key(key):
                    self._document.report(location, "found '<<' inside a mapping that is merged by '<<'")
                elif name is not None:
                    entries.setdefault(name, (key, value))

    def _report_key(self, location: Location, key: Node, message: str, hint: str | None = None) -> None:
        line, column = yaml_nodes.position(key)
        self._document.findings.append(Finding(self._document.file, line, column, dotted(location), message, hint))

    def _expand(self, location: Location, spot: Spot, text: str) -> str:
        if "${" not in text:
            return text
        expansion = Expansion(text, self._environ)
        for message, hint in expansion.problems:
            self._document.report(location, message, hint)
        spot.variables = tuple(expansion.variables)
        return expansion.value


def _parse_scalar(kind: str, text: str) -> str | int | float | bool | None:
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
