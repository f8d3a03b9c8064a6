"""Errors that validators of a model raise.

A validator says only what it expects. `keysync.config.validate` adds the value that was found and its position, and hides
secrets, so that no validator can put a secret into a message.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias, cast

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from keysync.config.printable import Location

LocatedError: TypeAlias = tuple[Location, PydanticCustomError]
"""An error and its location below the validated value."""


def expected(expectation: str, hint: str | None = None) -> PydanticCustomError:
    """An error for a value of the wrong form. The message becomes "found …, expected `expectation`"."""
    return _custom_error("expected", expectation, {"hint": hint or ""})


def problem(message: str, hint: str | None = None) -> PydanticCustomError:
    """An error whose `message` is the whole text, for cases where "found …" would not help."""
    return _custom_error("problem", message, {"hint": hint or ""})


def missing() -> PydanticCustomError:
    """The error for a required key that is absent."""
    return PydanticCustomError("missing", "Field required")


def combined(errors: Iterable[LocatedError]) -> ValidationError:
    """One error for a validator to raise that holds several, each at its location."""
    details = [InitErrorDetails(type=error, loc=location, input=None) for location, error in errors]
    return ValidationError.from_exception_data("several", details, hide_input=True)


def parts_of(error: ValidationError) -> list[LocatedError]:
    """The parts of a pydantic error, so that `combined` can raise them together with others."""
    return [
        (part["loc"], _custom_error(part["type"], part["msg"], part.get("ctx")))
        for part in error.errors(include_url=False, include_input=False)
    ]


def _custom_error(kind: str, message: str, context: dict[str, object] | None) -> PydanticCustomError:
    # pydantic fills `{name}` in a template from the context, and our messages are no templates.
    template = message.replace("{hint}", "(hint)")
    # pydantic-core declares LiteralString, but accepts any text.
    return PydanticCustomError(cast("Any", kind), cast("Any", template), context)
