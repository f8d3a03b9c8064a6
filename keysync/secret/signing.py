"""Signing what is sent to a webhook, so that its receiver can tell who sent it and when."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from keysync.errors import UsageError
from keysync.files import read_small, secret_text
from keysync.secret.redact import Redactor
from keysync.secret.reveal import reveal
from keysync.secret.value import SecretValue


class Signer:
    """Signs with HMAC-SHA256. The secret stays within: it is in no printed form and cannot be pickled."""

    __slots__ = ("_secret",)

    def __init__(self, secret: SecretValue) -> None:
        self._secret = secret

    def sign(self, body: bytes, now: float) -> str:
        """``t=UNIX,v1=HEX`` over ``UNIX.body``; `now` in seconds since 1970, of which whole ones are used."""
        moment = int(now)
        mac = hmac.new(reveal(self._secret).encode(), f"{moment}.".encode() + body, hashlib.sha256)
        return f"t={moment},v1={mac.hexdigest()}"

    def __repr__(self) -> str:
        return "Signer(…)"


def signer_from(file: Path | None, text: str | None, redactor: Redactor) -> Signer:
    """The signer whose secret is `text`, or else the content of `file`; from now on `redactor` masks that secret.

    White space around the content of a file is no part of the secret. Raises UsageError where the file cannot be read, is not UTF-8, or is
    empty.
    """
    return Signer(redactor.remember(SecretValue(text if text is not None else _read(file))))


def _read(file: Path | None) -> str:
    try:
        text = secret_text(read_small(file)) if file is not None else ""
    except (OSError, UnicodeDecodeError):
        # Not chained: the text of a decoding error shows bytes of the file.
        raise UsageError(f"notify.secret_file: {file}: the file cannot be read as text") from None
    if not text:
        raise UsageError(f"notify.secret_file: {file}: the file is empty, expected a secret to sign with")
    return text
