"""Compares secrets without keeping them: a digest with a random key that never leaves the process."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final, NoReturn

from keysync.secret.reveal import reveal
from keysync.secret.value import SecretValue

# Long enough that different values never collide; short, since thousands of digests are kept.
_DIGEST_BYTES: Final = 24


class Fingerprint:
    """The digest of a secret. Two of the same `Fingerprinter` are equal if and only if their secrets are.

    It cannot be printed or pickled: a digest outside the process could be used to recognise a key.
    """

    __slots__ = ("_digest",)

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fingerprint) and hmac.compare_digest(self._digest, other._digest)

    def __hash__(self) -> int:
        return hash(self._digest)

    def __repr__(self) -> str:
        return "Fingerprint(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Fingerprint is never serialised")


class Fingerprinter:
    """Makes fingerprints with a random key of its own."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def of(self, value: SecretValue) -> Fingerprint:
        """The fingerprint of `value`, comparable only with others of this object."""
        content = reveal(value).encode("utf-8", "surrogatepass")
        return Fingerprint(hashlib.blake2b(content, key=self._key, digest_size=_DIGEST_BYTES).digest())
