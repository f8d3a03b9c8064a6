"""`SecretValue`, the only shape in which a key, or any other secret, travels through keysync."""

from __future__ import annotations

import base64
import binascii
from typing import Final, NoReturn

MASK: Final = "**********"
_SHORTEST_KEY: Final = 32


class SecretValue:
    """A secret that no accident prints: every way to text gives the same mask, whatever the length.

    It cannot be pickled, has no length and equals only itself; equality of content is a matter of
    `keysync.secret.fingerprint`, and the text comes out only through `keysync.secret.reveal`.
    """

    __slots__ = ("__weakref__", "_text")

    def __init__(self, text: str) -> None:
        self._text = text

    def is_base64_key(self) -> bool:
        """Whether the content is standard base64 of at least 32 bytes. A key of a Batch account has 64 today."""
        try:
            return len(base64.b64decode(self._text, validate=True)) >= _SHORTEST_KEY
        except (binascii.Error, ValueError):
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
