"""Validates a document with pydantic, and turns its errors into findings with positions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar, cast, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from keysync.config.formats import nearest
from keysync.config.printable import MAX_SHOWN, is_secret_key, may_be_shown
from keysync.config.rules import MISSING, Invalid, Location, Problem
from keysync.config.yaml import Document, file_error, read_document
from keysync.errors import ConfigError, Finding

_T = TypeVar("_T")

_UNKNOWN_KEY: Final = frozenset({"unexpected_keyword_argument", "extra_forbidden"})

# Error types of pydantic (docs.pydantic.dev/latest/errors/validation_errors), such as `bool_type` and `int_from_float`.
_WRONG_TYPE: Final = re.compile("(.+?)_(type|sub_type|parsing|from_float)")
_TYPES: Final = {
    **dict.fromkeys(("dataclass", "model", "dict", "mapping"), "a mapping"),
    **dict.fromkeys(("list", "tuple"), "a list"),
    **dict.fromkeys(("string", "path"), "text"),
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
}


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
            at_key = part["type"] in _UNKNOWN_KEY or part["loc"][-1:] == ("[key]",)
            for problem in self._problems(part, location) if location not in known else ():
                place = (*location, *problem.at)
                place = place if problem.message == MISSING else self._location(place)
                if place not in self._document.reported:
                    findings.append(self._document.finding(place, problem, at_key=at_key))
        return list(dict.fromkeys(findings))

    def _problems(self, part: ErrorDetails, location: Location) -> Iterator[Problem]:
        kind, error = part["type"], part.get("ctx", {}).get("error")
        wrong_type = _WRONG_TYPE.fullmatch(kind)
        if isinstance(error, Invalid):
            yield from error.problems
        elif kind == "missing":
            yield Problem(MISSING)
        elif kind in _UNKNOWN_KEY:
            known, guess = _known_keys(self._kind, part["loc"][:-1]), self._guess(part)
            hint = f"did you mean '{guess[-1]}'?" if guess else f"known here: {', '.join(known)}" if known else None
            yield Problem("unknown key", hint)
        elif kind == "value_error" and is_secret_key(location):
            yield Problem("the value is not valid")
        elif wrong_type and wrong_type[1] in _TYPES:
            yield Problem(_TYPES[wrong_type[1]], self._type_hint(wrong_type[1], location), is_expectation=True)
        else:
            message = part["msg"].removeprefix("Value error, ")
            short, changed = re.subn(r"^\w+ should (be|have|match) ", "", message)
            message = short if changed else f"something else: {message[:1].lower()}{message[1:]}"
            yield Problem(message, is_expectation=True)

    def _type_hint(self, wanted: str, location: Location) -> str | None:
        if wanted == "tuple":
            return "write [value]"
        spot = self._document.spots.get(location)
        if _TYPES[wanted] != "text" or spot is None or spot.value is None or spot.node.id != "scalar":
            return None
        return f'put it in quotes: "{spot.node.value[:MAX_SHOWN]}"' if may_be_shown(location, spot.node.value) else None

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


def _known_keys(kind: Any, location: Location) -> list[str]:  # noqa: ANN401  # a class, an annotation or its argument
    """The keys that a value of the type `kind` allows in the mapping at a location of pydantic."""
    if arguments := get_args(kind):
        is_container = get_origin(kind) in {dict, list, tuple, Mapping}
        return [key for inner in arguments for key in _known_keys(inner, location[1:] if is_container else location)]
    if not isinstance(kind, type):
        return []
    if location[:1] == (f"={kind.__name__}",):  # see `Select`
        location = location[1:]
    if location:
        return _known_keys(get_type_hints(kind, include_extras=True).get(str(location[0])), location[1:])
    if is_dataclass(kind):
        return [item.name for item in fields(kind)]
    return list(getattr(cast("object", kind), "model_fields", ()))
