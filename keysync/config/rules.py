"""Rules of the model: markers in annotations, and what a broken rule says.

The model uses an annotated type as its plain type. pydantic, when it validates or writes the JSON Schema, asks each marker for
its part. So only validation imports pydantic, and a daemon that holds a configuration does not need it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeAlias, get_args

Location: TypeAlias = tuple[str | int, ...]
"""The path to a value from the top of the file: keys of mappings and indexes of lists."""

MISSING: Final = "the key is required and missing"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with the value at `at`, a location below the checked value.

    `keysync.config.validate` adds the position, and "found …" if `is_expectation`. It hides secrets, so that no check can put
    one into a message.
    """

    message: str
    hint: str | None = None
    at: Location = ()
    is_expectation: bool = False


class Invalid(ValueError):  # reads as a sentence: raise Invalid(...)
    """A value breaks one rule or more."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(it.message + (f" ({it.hint})" if it.hint else "") for it in problems))
        self.problems = problems


def expected(expectation: str, hint: str | None = None) -> Invalid:
    """For a value of the wrong form. The message becomes "found …, expected `expectation`"."""
    return Invalid(Problem(expectation, hint, is_expectation=True))


def missing(key: str) -> Problem:
    """A required key is absent."""
    return Problem(MISSING, at=(key,))


def require_none(problems: Iterable[Problem]) -> None:
    """Raises Invalid with all `problems`, if there are any."""
    if found := tuple(problems):
        raise Invalid(*found)


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A marker: `parse` converts the value in the file before the type checks it, and `check` the value of the type.

    Both raise Invalid. `schema` adds to the JSON Schema of the type, and replaces it if there is a `parse`.
    """

    check: Callable[[Any], Any] | None = None
    schema: Mapping[str, Any] = field(default_factory=dict[str, Any])
    parse: Callable[[Any], Any] | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:  # noqa: ANN401  # the types of pydantic
        """Called by pydantic."""
        from pydantic_core import core_schema  # noqa: PLC0415  # see the docstring of the module

        inner = handler(source)
        if self.parse is not None:
            inner = core_schema.no_info_before_validator_function(self.parse, inner)
        return inner if self.check is None else core_schema.no_info_after_validator_function(self.check, inner)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:  # noqa: ANN401  # as above
        """Called by pydantic."""
        own: dict[str, Any] = {} if self.parse is not None and self.schema else handler(schema)
        return {**own, **self.schema}


@dataclass(frozen=True, slots=True, eq=False)
class Select:
    """A marker of a union: `select` returns the index of the member that a value belongs to, or raises Invalid."""

    select: Callable[[Any], int]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:  # noqa: ANN401  # the types of pydantic
        """Called by pydantic. In a location of pydantic, ``=NAME`` is the member of that name."""
        from pydantic_core import core_schema  # noqa: PLC0415  # see the docstring of the module

        def check(value: object) -> object:
            self.select(value)  # here, because pydantic does not expect a discriminator to raise
            return value

        tags = [f"={getattr(member, '__name__', '')}" for member in get_args(source)]
        members = {tag: handler.generate_schema(member) for tag, member in zip(tags, get_args(source), strict=True)}
        union = core_schema.tagged_union_schema(members, lambda value: tags[self.select(value)])
        return core_schema.no_info_before_validator_function(check, union)


class Strict:
    """Base of all mappings of the file: pydantic refuses unknown keys, and its error texts contain no values."""

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "hide_input_in_errors": True}


class FromEnvironment(str):
    """Text with values of environment variables. `variable` is the name if the file had ``${NAME}`` and nothing else."""

    __slots__ = ("variable",)
    variable: str | None


def requiring(holds: Callable[[Any], object], expectation: str, hint: str | None = None, **schema: object) -> Rule:
    """A rule that accepts what `holds` accepts. `schema` are keywords of JSON Schema that say the same."""

    def check(value: Any) -> Any:  # noqa: ANN401  # any type of the model
        if not holds(value):
            raise expected(expectation, hint)
        return value

    return Rule(check, schema)


def matching(pattern: str, expectation: str = "", hint: str | None = None) -> Rule:
    """Text that matches a regular expression."""
    return requiring(
        re.compile(pattern).fullmatch, expectation or f"text that matches {pattern}", hint, pattern=pattern
    )


def length(shortest: int, longest: int) -> Rule:
    """Text with a number of characters."""
    schema: dict[str, Any] = {"maxLength": longest} | ({"minLength": shortest} if shortest else {})
    expectation = f"text of {shortest} to {longest} characters"
    return requiring(lambda value: shortest <= len(value) <= longest, expectation, **schema)


def within(lowest: int, highest: int) -> Rule:
    """A number from `lowest` to `highest`."""
    numbers = range(lowest, highest + 1)
    return requiring(numbers.__contains__, f"{lowest} to {highest}", minimum=lowest, maximum=highest)
