"""Skip tokens: the position in a list where its next page begins."""

from __future__ import annotations

import base64
import binascii

from keysync.emulator.wire import Refused, Reply, error


def encode_token(position: str) -> str:
    """The token for a position in a list."""
    return base64.urlsafe_b64encode(position.encode()).decode("ascii").rstrip("=")


def decode_token(token: str) -> str:
    """The position that a token encodes. Raises Refused if it is no token of `encode_token`."""
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as failure:
        raise Refused(_invalid()) from failure


def decode_index(token: str) -> int:
    """The index that a token encodes, 0 for no token. Raises Refused if it encodes none."""
    position = decode_token(token)
    if position and not position.isdigit():
        raise Refused(_invalid())
    return int(position or 0)


def _invalid() -> Reply:
    return error(400, "InvalidSkipToken", "The skip token is not one of this service.")
