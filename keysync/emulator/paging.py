"""Tokens that say where the next page of a list begins."""

from __future__ import annotations

import base64
import binascii

from keysync.emulator.wire import Refused, error


def encode_token(place: str) -> str:
    """The token for a place in a list."""
    return base64.urlsafe_b64encode(place.encode()).decode("ascii").rstrip("=")


def decode_token(token: str) -> str:
    """The place that a token stands for; refuses what was never handed out."""
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as wrong:
        raise Refused(error(400, "InvalidSkipToken", "The skip token is not one of this service.")) from wrong
