"""Looks up types and keys of a pydantic model by their location in a file or in an error of pydantic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, Tag

from keysync.config.printable import Location, is_secret_key

ALTERNATIVE: Final = "="
"""The first character of a `Tag` that names an alternative of a union. Such a part of a location is no key of the file."""


def is_alternative(part: str | int) -> bool:
    """Whether a part of a pydantic location names an alternative of a union."""
    return isinstance(part, str) and part.startswith(ALTERNATIVE)


def is_secret(model: type[BaseModel], location: Location) -> bool:
    """Whether the value at `location`, or one that contains it, is secret by its key or by its type."""
    if is_secret_key(location):
        return True
    return any(SecretStr in _types_at(model, location[:end]) for end in range(1, len(location) + 1))


def known_keys(model: type[BaseModel], location: Location) -> list[str]:
    """The keys that `model` allows in the mapping at `location`."""
    return [
        info.alias or name
        for kind in _types_at(model, location)
        if isinstance(kind, type) and issubclass(kind, BaseModel)
        for name, info in kind.model_fields.items()
    ]


def _types_at(model: type[BaseModel], location: Location) -> list[Any]:
    current: list[tuple[Any, str | None]] = [(model, None)]
    for part in location:
        if is_alternative(part):
            current = [(kind, tag) for kind, tag in current if tag == part]
        else:
            current = [member for kind, _ in current for below in _below(kind, part) for member in _members(below)]
    return [kind for kind, _ in current]


def _members(annotation: object, tag: str | None = None) -> Iterator[tuple[Any, str | None]]:
    """The members of an annotation without unions and metadata, each with the tag of its alternative."""
    origin = get_origin(annotation)
    if origin is Annotated:
        base, *metadata = get_args(annotation)
        tag = next((item.tag for item in metadata if isinstance(item, Tag)), tag)
        yield from _members(base, tag)
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member, tag)
    else:
        yield annotation, tag


def _below(annotation: object, part: str | int) -> Iterator[Any]:
    """The types of `part` in a value of the type `annotation`."""
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, info in annotation.model_fields.items():
            if part in (name, info.alias):
                yield from (info.annotation, *(item for item in info.metadata if isinstance(item, type)))
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield from arguments[1:]
    elif isinstance(part, int):
        yield from (item for item in arguments if item is not Ellipsis)
