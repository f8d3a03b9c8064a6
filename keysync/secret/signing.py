"""Signs webhook bodies, so that the receiver can verify who sent them and when."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

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
