"""Validates a document with pydantic, and turns its errors into findings with positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from keysync.config.formats import nearest
from keysync.config.printable import MAX_SHOWN, is_secret_key, may_be_shown
from keysync.config.rules import MISSING, Invalid, Location, Select
from keysync.config.yaml import Document, file_error, read_document
from keysync.errors import ConfigError, Finding

_T = TypeVar("_T")

_UNKNOWN_KEY: Final = frozenset({"unexpected_keyword_argument", "extra_forbidden"})


def load_document(path: Path, kind: type[_T], *, environ: Mapping[str, str]) -> _T:
    """Reads the YAML file `path`, replaces ``${NAME}`` by variables of `environ`, and validates the result as a `kind`.

    Raises ConfigError with every finding of the file, by line.
    """
    validated: _T = validate(read_document(path, environ=environ), kind)
    return validated


def validate(document: Document, kind: Any) -> Any:  # noqa: ANN401  # a class or an annotation, and a value of it
    """The document as a `kind`. Raises ConfigError with all findings by line, earlier ones of the document included."""
    try:
        validated = adapter(kind).validate_python(document.value)
    except ValidationError as error:
        document.findings += _Translator(document, kind).findings(error)
    except RecursionError:
        raise file_error(document.file, "the values are nested too deeply") from None
    else:
        if not document.findings:
            return validated
    raise ConfigError(sorted(document.findings, key=lambda finding: (finding.line or 0, finding.column or 0)))


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401  # as above
    """What validates values of `kind`."""
    return TypeAdapter(kind)


class _Translator:
    """Turns errors of pydantic into findings."""

    def __init__(self, document: Document, kind: Any) -> None:  # noqa: ANN401  # a class or an annotation
        self._document = document
        self._kind = kind

    def findings(self, error: ValidationError) -> list[Finding]:
        """A finding for each part of `error`, except parts that only follow from another finding."""
        parts = error.errors(include_url=False)
        known = self._document.reported | {self._guess(part) for part in parts if part["type"] in _UNKNOWN_KEY}
        findings: list[Finding] = []
        for part in parts:
            location = self._location(part["loc"])
            if part["type"] == "missing":
                location = (*location, part["loc"][-1])
            if location not in known:
                findings += self._findings(part, location)
        return list(dict.fromkeys(findings))

    def _findings(self, part: ErrorDetails, location: Location) -> Iterator[Finding]:
        kind, context = part["type"], part.get("ctx") or {}
        if isinstance(context.get("error"), Invalid):
            yield from self._broken_rules(part, location, context["error"])
        elif kind == "missing":
            yield self._document.finding(location, MISSING)
        elif kind in _UNKNOWN_KEY:
            yield self._unknown_key(part, location)
        elif kind == "value_error" and is_secret_key(location):
            yield self._document.finding(location, "the value is not valid")
        elif kind in _TEXT_ERRORS:
            yield self._unexpected(location, "text", self._quoting_hint(location))
        elif kind in _EXPECTATIONS:
            yield self._unexpected(location, _EXPECTATIONS[kind].format(**context), _HINTS.get(kind))
        else:
            message = part["msg"].removeprefix("Value error, ")
            yield self._unexpected(location, f"something else: {message[:1].lower()}{message[1:]}")

    def _broken_rules(self, part: ErrorDetails, location: Location, error: Invalid) -> Iterator[Finding]:
        is_key = part["loc"][-1:] == ("[key]",)
        for problem in error.problems:
            place = (*location, *problem.at)
            if problem.message != MISSING:
                place = self._location(place)
            if place in self._document.reported:
                continue
            if is_key:
                message = f"found a key that is not shown, expected {problem.message}"
                yield self._document.finding(place, message, problem.hint, at_key=True)
            elif problem.is_expectation:
                yield self._unexpected(place, problem.message, problem.hint)
            else:
                yield self._document.finding(place, problem.message, problem.hint)

    def _unexpected(self, location: Location, expectation: str, hint: str | None = None) -> Finding:
        found = self._document.found(location)
        return self._document.finding(location, f"found {found}, expected {expectation}", hint)

    def _quoting_hint(self, location: Location) -> str | None:
        spot = self._document.spots.get(location)
        if spot is None or spot.value is None or spot.node.id != "scalar":
            return None
        return f'put it in quotes: "{spot.node.value[:MAX_SHOWN]}"' if may_be_shown(location, spot.node.value) else None

    def _unknown_key(self, part: ErrorDetails, location: Location) -> Finding:
        known = _known_keys(self._kind, part["loc"][:-1])
        guess = self._guess(part)
        hint = f"did you mean '{guess[-1]}'?" if guess else f"known here: {', '.join(known)}" if known else None
        return self._document.finding(location, "unknown key", hint, at_key=True)

    def _guess(self, part: ErrorDetails) -> Location | None:
        """The location of the key that an unknown key probably means."""
        parent = self._location(part["loc"])[:-1]
        taken = cast("dict[str, Any]", self._document.spots[parent].value)
        known = [key for key in _known_keys(self._kind, part["loc"][:-1]) if key not in taken]
        meant = nearest(str(part["loc"][-1]), known)
        return (*parent, meant) if meant else None

    def _location(self, pydantic_location: Location) -> Location:
        """A location of pydantic without the parts that are no key and no index of the file."""
        location: Location = ()
        for part in pydantic_location:
            if (*location, part) in self._document.spots:
                location = (*location, part)
        return location


def _known_keys(kind: Any, location: Location) -> list[str]:  # noqa: ANN401  # a class or an annotation
    """The keys that a value of the type `kind` allows in the mapping at a location of pydantic."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated and any(isinstance(marker, Select) for marker in arguments[1:]):
        member = get_args(arguments[0])[int(str(location[0])[1:])]  # see Select
        return _known_keys(member, location[1:])
    if origin in (Union, UnionType):
        members: Sequence[Any] = arguments
        return [key for member in members for key in _known_keys(member, location)]
    if origin is Annotated:
        return _known_keys(arguments[0], location)
    if origin is not None:
        return _known_keys(arguments[-1 if issubclass(origin, Mapping) else 0], location[1:])
    names: list[str]
    if is_dataclass(kind):
        names = [item.name for item in fields(kind) if item.init]
    else:
        names = list(getattr(kind, "model_fields", ()))
    if not location:
        return names
    return _known_keys(get_type_hints(kind, include_extras=True).get(str(location[0])), location[1:])


_TEXT_ERRORS: Final = frozenset({"string_type", "path_type", "string_sub_type"})
_HINTS: Final = {"tuple_type": "write [value]"}

# Error types of pydantic (docs.pydantic.dev/latest/errors/validation_errors) to the text after "expected".
_EXPECTATIONS: Final[dict[str, str]] = {
    "dataclass_type": "a mapping",
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "{le} or less",
    "literal_error": "{expected}",
    "too_short": "at least {min_length} in it",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "string_pattern_mismatch": "text that matches {pattern}",
}
