"""Types for parsed JSON, whose shape is not known until it is checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast


def as_mapping(value: object) -> Mapping[str, object] | None:
    """`value` if it is a mapping (a JSON object), else None."""
    # JSON has no other keys than strings.
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else None


def as_list(value: object) -> list[object] | None:
    """`value` if it is a list (a JSON array), else None."""
    return cast("list[object]", value) if isinstance(value, list) else None
