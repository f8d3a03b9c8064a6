"""The only access to the plain text of a `SecretValue`. CI checks which modules import it."""

from __future__ import annotations

from keysync.secret.value import SecretValue


def reveal(value: SecretValue) -> str:
    """The plain text, for one comparison or one request body. Do not assign it to a variable that outlives the expression."""
    # Private everywhere else: this function is the only access.
    return value._text  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
