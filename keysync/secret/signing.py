"""Signs webhook bodies, so that the receiver can verify who sent them and when."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

from keysync.errors import UsageError
from keysync.files import read_small, secret_text
from keysync.secret.redact import Redactor
from keysync.secret.reveal import reveal
from keysync.secret.value import SecretValue


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs with HMAC-SHA256."""

    secret: SecretValue

    def sign(self, body: bytes, now: float) -> str:
        """The signature ``t=UNIX,v1=HEX`` of ``UNIX.body``. `now` is in seconds since 1970 and is truncated to whole seconds."""
        moment = int(now)
        mac = hmac.new(reveal(self.secret).encode(), f"{moment}.".encode() + body, hashlib.sha256)
        return f"t={moment},v1={mac.hexdigest()}"


def signer_from(file: Path | None, text: str | None, redactor: Redactor) -> Signer:
    """The signer whose secret is `text`, or else the content of `file`. `redactor` masks that secret.

    White space around the content of the file is ignored. Raises UsageError if the file cannot be read, is not UTF-8 or is empty.
    """
    if text is None:
        try:
            text = secret_text(read_small(file)) if file is not None else ""
        except (OSError, UnicodeDecodeError):
            # Not chained: the message of a UnicodeDecodeError shows bytes of the file.
            raise UsageError(f"notify.secret_file: {file}: the file cannot be read as text") from None
        if not text:
            raise UsageError(f"notify.secret_file: {file}: the file is empty, expected a secret to sign with")
    return Signer(redactor.remember(SecretValue(text)))
