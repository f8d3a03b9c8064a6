"""The ``$filter`` of listings of resources: comparisons of text, joined by ``and``.

learn.microsoft.com/rest/api/resources/resources/list
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from keysync.emulator.services.arm_errors import gateway_error
from keysync.emulator.wire import Refused, Reply

_TEXT = r"'((?:[^']|'')*)'"
_TERM = re.compile(
    rf"(?:(?P<field>\w+)\s+(?P<operator>eq|ne)\s+{_TEXT}|(?P<function>substringof)\(\s*{_TEXT}\s*,\s*(?P<inside>\w+)\s*\))",
    re.IGNORECASE,
)
_AND = re.compile(r"\s+and\s+", re.IGNORECASE)

Fields = Mapping[str, str]
"""The text of each field of an item, by its name in lower case."""


def parse_filter(text: str, fields: set[str]) -> Callable[[Fields], bool]:
    """Whether an item matches. Raises Refused for another syntax, and for a field that is not in `fields`."""
    terms: list[tuple[str, str, str]] = []
    position = 0
    while text.strip():
        match = _TERM.match(text, position)
        if match is None:
            raise Refused(_invalid(text))
        field = (match["field"] or match["inside"]).lower()
        if field not in fields:
            raise Refused(_invalid(text))
        operator = (match["operator"] or match["function"]).lower()
        terms.append((field, operator, (match[3] if match["field"] else match[5]).replace("''", "'").lower()))
        position = match.end()
        if not text[position:].strip():
            break
        joined = _AND.match(text, position)
        if joined is None:
            raise Refused(_invalid(text))
        position = joined.end()
    return lambda item: all(_holds(operator, item.get(field, "").lower(), value) for field, operator, value in terms)


def _holds(operator: str, actual: str, value: str) -> bool:
    if operator == "substringof":
        return value in actual
    return (actual == value) == (operator == "eq")


def _invalid(text: str) -> Reply:
    return gateway_error(400, "InvalidFilterInQueryString", f"Invalid $filter '{text}' specified in the query string.")
