"""`SecretValue`, the type of every key and other secret in keysync."""

from __future__ import annotations

import base64
from typing import Final, NoReturn

MASK: Final = "**********"
_MIN_KEY_BYTES: Final = 32


class SecretValue:
    """A secret that cannot be printed by accident: every conversion to text gives the same mask, whatever the length.

    It cannot be pickled, has no length and equals only itself. `keysync.secret.fingerprint` compares the contents of two
    secrets; `keysync.secret.reveal` returns the text.
    """

    __slots__ = ("__weakref__", "_text")

    def __init__(self, text: str) -> None:
        self._text = text

    def is_base64_key(self) -> bool:
        """Whether the secret is standard base64 of at least 32 bytes. A Batch account key has 64 bytes today."""
        try:
            return len(base64.b64decode(self._text, validate=True)) >= _MIN_KEY_BYTES
        except ValueError:
            return False

    def __repr__(self) -> str:
        return f"SecretValue({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SecretValue is never serialised")

    def __copy__(self) -> SecretValue:
        return self

    def __deepcopy__(self, memo: object) -> SecretValue:
        return self
