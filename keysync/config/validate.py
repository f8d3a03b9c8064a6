"""Validates a document with a pydantic model, and turns the errors of pydantic into findings with positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from keysync.config.document import Document, file_error
from keysync.config.formats import nearest
from keysync.config.model_fields import is_alternative, is_secret, known_keys
from keysync.config.plain_values import is_mapping
from keysync.config.printable import MAX_SHOWN, Location, may_be_shown
from keysync.errors import ConfigError, Finding

M = TypeVar("M", bound=BaseModel)


def validate(document: Document, model: type[M]) -> M:
    """The document as a `model`. Raises ConfigError with all findings by line, earlier ones of the document included."""
    try:
        validated = model.model_validate(document.value)
    except ValidationError as error:
        document.secret = {location for location in document.spots if is_secret(model, location)}
        document.findings += _Translator(document, model).findings(error)
    except RecursionError:
        raise file_error(document.file, "the values are nested too deeply") from None
    else:
        if not document.findings:
            return validated
    raise ConfigError(sorted(document.findings, key=lambda finding: (finding.line or 0, finding.column or 0)))


class _Translator:
    """Turns errors of pydantic into findings."""

    def __init__(self, document: Document, model: type[BaseModel]) -> None:
        self._document = document
        self._model = model

    def findings(self, error: ValidationError) -> list[Finding]:
        """A finding for each part of `error`, except parts that only follow from another finding."""
        parts = error.errors(include_url=False)
        guessed = {self._guess(part) for part in parts if part["type"] == "extra_forbidden"}
        findings: list[Finding] = []
        for part in parts:
            location = self._location(part["loc"])
            missing = (*location, part["loc"][-1]) if part["type"] == "missing" else None
            if location in self._document.reported or (missing and missing in guessed):
                continue
            findings.append(self._finding(part, location, missing))
        return list(dict.fromkeys(findings))

    def _finding(self, part: ErrorDetails, location: Location, missing: Location | None) -> Finding:
        if missing:
            return self._document.finding(missing, "the key is required and missing")
        if part["type"] == "extra_forbidden":
            return self._unknown_key(part, location)
        if part["loc"] and part["loc"][-1] == "[key]":
            message = f"found a key that is not shown, expected {part['msg']}"
            return self._document.finding(location, message, _hint(part), at_key=True)
        if part["type"] == "problem":
            return self._document.finding(location, part["msg"], _hint(part))
        if part["type"] == "value_error" and location in self._document.secret:
            return self._document.finding(location, "the value is not valid")
        expectation, hint = self._expectation(part, location)
        return self._document.finding(location, f"found {self._document.found(location)}, expected {expectation}", hint)

    def _expectation(self, part: ErrorDetails, location: Location) -> tuple[str, str | None]:
        kind = str(part["type"])
        context = part.get("ctx") or {}
        if kind == "expected":
            return part["msg"], _hint(part)
        if kind in _TEXT_ERRORS:
            return "text", self._quoting_hint(location)
        if kind in _EXPECTATIONS:
            return _EXPECTATIONS[kind](context), None
        message = str(part["msg"]).removeprefix("Value error, ")
        return f"something else: {message[:1].lower()}{message[1:]}", None

    def _quoting_hint(self, location: Location) -> str | None:
        spot = self._document.spots.get(location)
        if spot is None or spot.text is None or spot.value is None or not may_be_shown(location, spot.text):
            return None
        return f'put it in quotes: "{spot.text[:MAX_SHOWN]}"'

    def _unknown_key(self, part: ErrorDetails, location: Location) -> Finding:
        known = known_keys(self._model, part["loc"][:-1])
        guess = self._guess(part)
        hint = f"did you mean '{guess[-1]}'?" if guess else f"known here: {', '.join(known)}" if known else None
        return self._document.finding(location, "unknown key", hint, at_key=True)

    def _guess(self, part: ErrorDetails) -> Location | None:
        """The location of the key that an unknown key probably means."""
        location = self._location(part["loc"])
        parent = self._document.spots.get(location[:-1])
        taken = parent.value if parent is not None and is_mapping(parent.value) else {}
        known = [key for key in known_keys(self._model, part["loc"][:-1]) if key not in taken]
        meant = nearest(str(part["loc"][-1]), known)
        return (*location[:-1], meant) if meant else None

    def _location(self, pydantic_location: Location) -> Location:
        """A location of pydantic without the parts that are no key and no index of the file."""
        location: Location = ()
        for part in pydantic_location:
            if not is_alternative(part) and (*location, part) in self._document.spots:
                location = (*location, part)
        return location


def _hint(part: ErrorDetails) -> str | None:
    return (part.get("ctx") or {}).get("hint") or None


_TEXT_ERRORS: Final = frozenset({"string_type", "path_type", "string_sub_type"})

# Error types of pydantic (docs.pydantic.dev/latest/errors/validation_errors) to the text after "expected".
_EXPECTATIONS: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "model_type": lambda _: "a mapping",
    "model_attributes_type": lambda _: "a mapping",
    "dict_type": lambda _: "a mapping",
    "list_type": lambda _: "a list",
    "tuple_type": lambda _: "a list",
    "set_type": lambda _: "a list",
    "bool_type": lambda _: "true or false",
    "bool_parsing": lambda _: "true or false",
    "int_type": lambda _: "a whole number",
    "int_parsing": lambda _: "a whole number",
    "int_parsing_size": lambda _: "a smaller whole number",
    "int_from_float": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "float_parsing": lambda _: "a number",
    "finite_number": lambda _: "a finite number",
    "greater_than_equal": lambda context: f"{context.get('ge')} or more",
    "greater_than": lambda context: f"more than {context.get('gt')}",
    "less_than_equal": lambda context: f"{context.get('le')} or less",
    "less_than": lambda context: f"less than {context.get('lt')}",
    "literal_error": lambda context: str(context.get("expected")),
    "enum": lambda context: str(context.get("expected")),
    "too_short": lambda context: f"at least {context.get('min_length')} in it",
    "too_long": lambda context: f"at most {context.get('max_length')} in it",
    "string_too_short": lambda context: f"text of at least {context.get('min_length')} characters",
    "string_too_long": lambda context: f"text of at most {context.get('max_length')} characters",
    "string_pattern_mismatch": lambda context: f"text that matches {context.get('pattern')}",
}
