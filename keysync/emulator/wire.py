"""Requests and replies as the services see them, independent of the web server."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import SplitResult, unquote, urlsplit

from keysync.emulator.faults import Operation

Json = dict[str, object]


@dataclass(frozen=True)
class Call:
    """One request. `base` is the scheme and authority that the client used, so that links in replies work for it.

    `client` is the client's IP address.
    """

    method: str
    raw_path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    base: str
    client: str = "127.0.0.1"

    @property
    def segments(self) -> list[str]:
        """The decoded segments of the path. An encoded slash stays inside its segment."""
        return [unquote(part) for part in self.raw_path.split("/") if part]

    @property
    def bearer(self) -> str | None:
        """The bearer token of the Authorization header, None if it has none."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None


@dataclass
class Reply:
    """One reply. `body` is sent as JSON unless it is bytes."""

    status: int
    body: object = None
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def payload(self) -> bytes:
        """The bytes of the body."""
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Refused(Exception):  # a normal reply, not an error of the emulator
    """The service refuses the call with `reply`."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


@dataclass(frozen=True)
class Route:
    """How to serve a call: `run` carries out `operation` on `target`.

    `authorize` checks the caller first, and returns the refusal. `limit` returns the reply of a throttled service; it may
    also add headers for the reply of `run`. `now` is the service's clock, None for the emulator's. `error` makes an error of
    the service from status, code and message (empty for the usual one), for faults; None if the service has the shape of
    Resource Manager. `headers` are those of every reply, also of a refusal.
    """

    operation: Operation
    target: str
    run: Callable[[], Reply]
    authorize: Callable[[], Reply | None] = lambda: None
    limit: Callable[[dict[str, str]], Reply | None] = lambda _headers: None
    service: str = "arm"
    now: Callable[[], float] | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    error: Callable[[int, str, str], Reply] | None = None


def error(
    status: int,
    code: str,
    message: str,
    *,
    inner: str | None = None,
    target: str | None = None,
    details: object = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    """An error in the shape that ARM and Key Vault share. `inner` is the code of Key Vault's `innererror`."""
    content: Json = {"code": code, "message": message}
    if target is not None:
        content["target"] = target
    if details is not None:
        content["details"] = details
    if inner is not None:
        content["innererror"] = {"code": inner}
    return Reply(status, {"error": content}, dict(headers or {}))


def split_url(url: str) -> SplitResult:
    """The parts of a URL, all empty if its host or port is not valid."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError if it is no number
    except ValueError:
        return urlsplit("")
    return parts


def parse_json(text: bytes) -> object:
    """The value of JSON. Raises ValueError also for too many levels, and for half of a surrogate pair, which is no text."""
    try:
        value = json.loads(text)
    except RecursionError as failure:
        raise ValueError("the value has too many levels") from failure
    if b"\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def json_body(call: Call) -> Json:
    """The body as a JSON object, empty for no body. Raises Refused if it is anything else."""
    try:
        body = as_object(parse_json(call.body or b"{}"))
    except ValueError:
        body = None
    if body is None:
        raise Refused(error(400, "BadRequest", "The request body is not a valid JSON object."))
    return body


def as_object(value: object) -> Json | None:
    """`value` if it is a JSON object, else None."""
    return cast("Json", value) if isinstance(value, dict) else None


def as_list(value: object) -> list[object] | None:
    """`value` if it is a JSON array, else None."""
    return cast("list[object]", value) if isinstance(value, list) else None
