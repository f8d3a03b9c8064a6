"""SharedKey signatures of the Batch service.

https://learn.microsoft.com/rest/api/batchservice/authenticate-requests-to-the-azure-batch-service describes the string that
is signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from keysync.emulator.wire import Call

_SIGNED_HEADERS = (
    "Content-Encoding", "Content-Language", "Content-Length", "Content-MD5", "Content-Type", "Date", "If-Modified-Since",
    "If-Match", "If-None-Match", "If-Unmodified-Since", "Range",
)  # fmt: skip
_HEADER = re.compile(r"SharedKey ([^:\s]+):(\S+)", re.IGNORECASE)


@dataclass(frozen=True)
class SharedKey:
    """The account name and the signature of an Authorization header."""

    account: str
    signature: str


def shared_key_of(call: Call) -> SharedKey | None:
    """What the Authorization header says, None if its scheme is not SharedKey or it is not formed correctly."""
    match = _HEADER.fullmatch(call.headers.get("Authorization", "").strip())
    return SharedKey(match[1], match[2]) if match else None


def string_to_sign(call: Call, account: str) -> str:
    """The string that a client signs for `call`, with lowercase query names and all values of a repeated parameter."""
    return _signed(call, account, _documented_parameters(call), call.headers.get("Content-Length", ""))


def is_signed_with(call: Call, sent: SharedKey, keys: Iterable[str]) -> bool:
    """Whether the signature was made with one of `keys` (base64)."""
    return any(
        hmac.compare_digest(_signature(key, text).encode(), sent.signature.encode())
        for key in keys
        for text in _accepted(call, sent.account)
    )


def _accepted(call: Call, account: str) -> Iterator[str]:
    # azure-batch signs the names of parameters as it sends them (`timeOut`), and the first value that is not empty.
    first = {name: value for name, value in reversed(list(call.query.items())) if value}
    # Without a body, azure-batch signs 0 even if the header is not sent, and JavaScript's client nothing even if it is.
    changes = not call.body and call.method not in {"GET", "HEAD"}
    lengths = {"", "0"} if changes else {call.headers.get("Content-Length", "")}
    for parameters in (_documented_parameters(call), first):
        yield from (_signed(call, account, parameters, each) for each in lengths)


def _documented_parameters(call: Call) -> dict[str, str]:
    parameters: dict[str, list[str]] = {}
    for name, value in call.query.items():
        parameters.setdefault(name.lower(), []).append(value)
    return {name: ",".join(sorted(values)) for name, values in parameters.items()}


def _signed(call: Call, account: str, parameters: Mapping[str, str], length: str) -> str:
    lines = [call.method, *(length if name == "Content-Length" else _header(call, name) for name in _SIGNED_HEADERS)]
    ocp = {name.lower(): value for name, value in call.headers.items() if name.lower().startswith("ocp-")}
    lines += [f"{name}:{value}" for name, value in sorted(ocp.items())]
    lines.append(f"/{account}{call.raw_path}")
    return "\n".join([*lines, *(f"{name}:{value}" for name, value in sorted(parameters.items()))])


def _header(call: Call, name: str) -> str:
    return "" if name == "Date" and call.headers.get("ocp-date") else call.headers.get(name, "")


def _signature(key: str, text: str) -> str:
    try:
        secret = base64.b64decode(key, validate=True)
    except binascii.Error:
        secret = key.encode()  # a data file may have keys that are no base64: nothing signs with them
    return base64.b64encode(hmac.digest(secret, text.encode(), hashlib.sha256)).decode("ascii")
