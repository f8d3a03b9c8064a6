"""The one place where a secret's text leaves its `SecretValue`. Who may import it is checked in CI."""

from __future__ import annotations

from keysync.secret.value import SecretValue


def reveal(value: SecretValue) -> str:
    """The plain text, for one comparison or one request body; never bind it to a name that outlives the expression."""
    return value._text  # noqa: SLF001  # this function is the door
