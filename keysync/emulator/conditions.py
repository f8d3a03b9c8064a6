"""Conditions of role assignments: Azure's language, version 2.0.

learn.microsoft.com/azure/role-based-access-control/conditions-format. Of the operators it knows the ones for strings and GUIDs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import NamedTuple

Attributes = Mapping[str, str]
"""Values of attributes by their names in lower case, such as ``@resource[microsoft.keyvault/vaults/secrets:name]``."""

Condition = Callable[[str, Attributes], bool]
"""Whether the condition allows an action (in any case) on something with these attributes."""

_NAME_ATTRIBUTE = "microsoft.keyvault/vaults/secrets:name"
_TOKEN = re.compile(
    r"\s*(?:(?P<attribute>@\w+\[[^\]]+\])|(?P<text>'(?:[^'\\]|\\.)*')|(?P<mark>&&|\|\||[!(){},])|(?P<word>[\w:.-]+))"
)


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


def secret_attributes(name: str) -> Attributes:
    """The attributes of a call about the secret `name`. A listing has none, so that it meets no condition on names."""
    return {f"@resource[{_NAME_ATTRIBUTE}]": name, f"@request[{_NAME_ATTRIBUTE}]": name} if name else {}


_NESTING = frozenset({"(", "!", "not"})
_MAX_NESTING = 50
"""Each one takes some stack, in the parser and when the condition is evaluated."""


@cache
def parse(text: str) -> Condition:
    """The condition that `text` describes. Raises ValueError with the position of an error."""
    tokens = list(_tokens(text))
    if sum(token.text.lower() in _NESTING for token in tokens) > _MAX_NESTING:
        raise ValueError(f"the condition has more than {_MAX_NESTING} brackets and negations")
    parser = _Parser(tokens, len(text))
    condition = parser.alternatives()
    if parser.peek().kind != "end":
        raise parser.error("the end")
    return condition


def _tokens(text: str) -> Iterator[_Token]:
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise ValueError(f"the condition has an unknown character at position {position + 1}")
        yield _Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup))
        position = match.end()


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[_Token], end: int) -> None:
        self._tokens = [*tokens, _Token("end", "the end", end)]
        self._next = 0

    def peek(self) -> _Token:
        """The next token."""
        return self._tokens[self._next]

    def error(self, expected: str) -> ValueError:
        """The error about the next token."""
        token = self.peek()
        return ValueError(f"the condition has {token.text} at position {token.position + 1}, expected {expected}")

    def _take(self, *texts: str) -> bool:
        if self.peek().text.lower() not in texts:
            return False
        self._next += 1
        return True

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise self.error(text)

    def _value(self, kind: str, expected: str) -> str:
        token = self.peek()
        if token.kind != kind:
            raise self.error(expected)
        self._next += 1
        return token.text

    def alternatives(self) -> Condition:
        """One or more conditions with OR."""
        parts = [self._all()]
        while self._take("or", "||"):
            parts.append(self._all())
        return lambda action, attributes: any(part(action, attributes) for part in parts)

    def _all(self) -> Condition:
        parts = [self._one()]
        while self._take("and", "&&"):
            parts.append(self._one())
        return lambda action, attributes: all(part(action, attributes) for part in parts)

    def _one(self) -> Condition:
        if self._take("!", "not"):
            negated = self._one()
            return lambda action, attributes: not negated(action, attributes)
        if self._take("("):
            inner = self.alternatives()
            self._expect(")")
            return inner
        if self._take("actionmatches"):
            pattern = self._set()[0].lower()
            return lambda action, _attributes: fnmatchcase(action.lower(), pattern)
        if self._take("suboperationmatches"):
            self._set()
            return lambda _action, _attributes: False  # Key Vault and Resource Manager have no suboperations
        if self._take("exists"):
            present = self._value("attribute", "an attribute").lower()
            return lambda _action, attributes: present in attributes
        if self._take("notexists"):
            absent = self._value("attribute", "an attribute").lower()
            return lambda _action, attributes: absent not in attributes
        return self._comparison()

    def _comparison(self) -> Condition:
        attribute = self._value("attribute", "an attribute such as @Resource[...], an action or a bracket").lower()
        at = self._next
        quantifier, _, name = self._value("word", "an operator").rpartition(":")
        compare = _OPERATORS.get(name.lower())
        if compare is None or quantifier.lower() not in {"", "foranyofanyvalues", "forallofanyvalues"}:
            self._next = at
            raise self.error(f"an operator such as {', '.join(_NAMES)}")
        values = self._set() if self.peek().text == "{" else [_unquoted(self._value("text", "a text in quotes"))]

        def matches(_action: str, attributes: Attributes) -> bool:
            actual = attributes.get(attribute)
            return actual is not None and compare(actual, values)

        return matches

    def _set(self) -> list[str]:
        self._expect("{")
        values = [self._member()]
        while self._take(","):
            values.append(self._member())
        self._expect("}")
        return values

    def _member(self) -> str:
        return _unquoted(self._value("text" if self.peek().kind == "text" else "word", "a value"))


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith("'") else text


def _like(actual: str, pattern: str) -> bool:
    """``*`` for any text, ``?`` for one character; brackets have no meaning."""
    return fnmatchcase(actual, pattern.replace("[", "[[]"))


_SINGLE: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda actual, value: actual == value,
    "StringEqualsIgnoreCase": lambda actual, value: actual.lower() == value.lower(),
    "StringLike": _like,
    "StringLikeIgnoreCase": lambda actual, value: _like(actual.lower(), value.lower()),
    "StringStartsWith": lambda actual, value: actual.startswith(value),
    "StringStartsWithIgnoreCase": lambda actual, value: actual.lower().startswith(value.lower()),
    "GuidEquals": lambda actual, value: actual.lower() == value.lower(),
}


def _any(compare: Callable[[str, str], bool]) -> Callable[[str, list[str]], bool]:
    return lambda actual, values: any(compare(actual, value) for value in values)


def _none(compare: Callable[[str, str], bool]) -> Callable[[str, list[str]], bool]:
    return lambda actual, values: not any(compare(actual, value) for value in values)


def _negated(name: str) -> str:
    """``StringNotEquals`` for ``StringEquals``."""
    return re.sub(r"^(String|Guid)", r"\1Not", name)


_NAMES = tuple(_SINGLE)
_OPERATORS = {
    **{name.lower(): _any(compare) for name, compare in _SINGLE.items()},
    **{_negated(name).lower(): _none(compare) for name, compare in _SINGLE.items()},
}
