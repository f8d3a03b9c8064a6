"""Replaces ``${NAME}`` in a text of a file by the value of an environment variable."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Self

from keysync.files import secret_text

_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHOWN_VARIABLE: Final = re.compile(r"[A-Z0-9_]+|[a-z_]+")
_ESCAPE_HINT: Final = "write $${ for the literal text ${"


class FromEnvironment(str):
    """Text that contains the value of an environment variable. `variable` is its name if the text holds nothing else."""

    __slots__ = ("variable",)

    def __new__(cls, text: str, *, variable: str | None) -> Self:
        instance = super().__new__(cls, text)
        instance.variable = variable
        return instance

    variable: str | None


class Expansion:
    """The result of replacing the variables in `text`.

    `value` is the new text, `variables` are the names in it, and `problems` are pairs of message and hint.
    ``$${`` becomes ``${``. Values of variables are not expanded again.
    """

    __slots__ = ("_environ", "problems", "value", "variables")

    def __init__(self, text: str, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.variables: list[str] = []
        self.problems: list[tuple[str, str]] = []
        expanded = _REFERENCE.sub(self._replace, text)
        alone = self.variables[0] if self.variables and text == f"${{{self.variables[0]}}}" else None
        self.value = FromEnvironment(expanded, variable=alone) if self.variables else expanded

    def _replace(self, match: re.Match[str]) -> str:
        if match.group(0) == "$${":
            return "${"
        name, closed = match.group(1), bool(match.group(2))
        if not closed:
            self.problems.append(("found '${' without its '}'", _ESCAPE_HINT))
        elif not _VARIABLE.fullmatch(name):
            self.problems.append(("found '${…}' with text that is no name of a variable", _ESCAPE_HINT))
        else:
            self.variables.append(name)
            if name in self._environ:
                return secret_text(self._environ[name])
            # A name in mixed case may be a secret.
            shown = name if _SHOWN_VARIABLE.fullmatch(name) else "…"
            self.problems.append((f"the environment variable {shown} is not set", f"set {shown}, or {_ESCAPE_HINT}"))
        return ""
