"""Requests and replies as the services see them, without the web server."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from keysync.emulator.faults import Operation

Json = dict[str, object]


@dataclass(frozen=True)
class Call:
    """One request. `base` is scheme and authority as the client wrote them, so that links lead back to it."""

    method: str
    raw_path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    base: str

    @property
    def segments(self) -> list[str]:
        """The parts of the path, each decoded by itself, so that an encoded slash stays inside its part."""
        return [unquote(part) for part in self.raw_path.split("/") if part]

    @property
    def bearer(self) -> str | None:
        """The token of the Authorization header."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None


@dataclass
class Reply:
    """An answer; `body` is sent as JSON unless it is bytes."""

    status: int
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)

    def payload(self) -> bytes:
        """The body as it goes over the wire."""
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Refused(Exception):  # an answer, not a fault of the emulator
    """The service turns the call down; carries the reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


@dataclass(frozen=True)
class Route:
    """What a call asks for: `operation` and `target` name it, `run` carries it out.

    `gate` looks at who asks, before anything is spent on the call; `limit` gives the reply of a service that is
    asked too often, and may note headers for a reply that runs. `now` is the service's clock, None for the emulator's.
    """

    operation: Operation
    target: str
    run: Callable[[], Reply]
    gate: Callable[[], Reply | None] = lambda: None
    limit: Callable[[dict[str, str]], Reply | None] = lambda _headers: None
    service: str = "arm"
    now: Callable[[], float] | None = None


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
    """An error in the shape that ARM and Key Vault share; `inner` is Key Vault's inner code."""
    told: Json = {"code": code, "message": message}
    if target is not None:
        told["target"] = target
    if details is not None:
        told["details"] = details
    if inner is not None:
        told["innererror"] = {"code": inner}
    return Reply(status, {"error": told}, dict(headers or {}))


def json_body(call: Call) -> Json:
    """The body as a JSON object; anything else is refused."""
    try:
        told = json.loads(call.body or b"{}")
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise Refused(error(400, "BadRequest", "The request body is not a valid JSON object."))
    return told
