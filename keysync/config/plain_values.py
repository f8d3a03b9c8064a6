"""Type checks of plain values from a file. Unlike `isinstance`, they also give the types of keys and items."""

from __future__ import annotations

from typing import Any, TypeGuard


def is_mapping(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether `value` is a mapping of the file."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """Whether `value` is a list of the file, or a tuple of a model."""
    return isinstance(value, (list, tuple))
