"""What a fault sends: replaced, truncated and missing replies."""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from dataclasses import replace

from aiohttp import web

from keysync.emulator.faults import Fault
from keysync.emulator.services.arm_errors import FAILURE_CAUSE, usual_error
from keysync.emulator.services.entra import Entra
from keysync.emulator.services.vault_operations import CHANGES, ERRORS
from keysync.emulator.wire import Call, Reply, Route, as_object, error

_CODES = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    408: "RequestTimeout",
    409: "Conflict",
    429: "TooManyRequests",
    500: "InternalServerError",
    502: "BadGateway",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
}
_DATA_PLANE_CODES = {404: "ResourceNotFound", 500: "InternalError", 503: "ServerBusy"}
"""Those of Batch's data plane and of Storage that differ."""

_HTML = (
    "<!DOCTYPE html><html><head><title>Service unavailable</title></head>"
    "<body><h1>Our services aren't available right now</h1></body></html>"
)


def effect_first(fault: Fault) -> bool:
    """Whether the operation takes effect before the fault replaces its reply."""
    return fault.after or fault.kind in {"truncated", "null_keys"}


def faulty_reply(fault: Fault, real: Reply | None, call: Call, route: Route, entra: Entra) -> Reply:
    """The reply that a fault sends instead of the real one."""
    headers = dict(real.headers) if real is not None else {}
    headers.update(fault.headers)
    if fault.retry_after is not None:
        headers["Retry-After"] = fault.retry_after
    reply = _reply(fault, real, call, route, entra)
    reply.headers = {**reply.headers, **headers}
    return reply


def _reply(fault: Fault, real: Reply | None, call: Call, route: Route, entra: Entra) -> Reply:
    if fault.kind == "null_keys":
        body = (as_object(real.body) if real is not None else None) or {}
        nulled = {"primary", "secondary", "value", "access_token"}
        return Reply(200, {name: None if name in nulled else value for name, value in body.items()})
    if fault.kind in {"html", "empty", "body"}:
        text = {"html": fault.body or _HTML, "empty": "", "body": fault.body or ""}[fault.kind]
        kind = "text/html; charset=utf-8" if fault.kind == "html" else "application/json; charset=utf-8"
        encoded = {"Content-Encoding": "gzip"} if fault.gzip else {}
        return Reply(fault.answer_status, _content(fault, text.encode()), {"Content-Type": kind, **encoded})
    if route.error is not None:
        usual = (_CODES | _DATA_PLANE_CODES).get(fault.status, "Failed")
        return route.error(fault.status, fault.code or usual, fault.message or "")
    known = ERRORS.get(fault.status) if route.service == "vault" else None
    if route.service == "arm":
        known = usual_error(call, fault.status, fault.retry_after or "1")
    usual_code, usual_message = known or (_CODES.get(fault.status, "Failed"), "")
    code = fault.code or usual_code
    if route.service == "entra":
        return entra.error(fault.status, code, fault.message, call)
    message = fault.message or usual_message or f"An injected fault: {code}."
    from_gateway = {FAILURE_CAUSE: "gateway"} if route.service == "arm" and known and code == usual_code else {}
    return error(fault.status, code, message, inner=fault.inner_code, details=fault.details, headers=from_gateway)


def _content(fault: Fault, text: bytes) -> bytes:
    if not fault.gzip:
        return text * fault.repeat
    # The uncompressed text may be too large for memory, so it is compressed piece by piece.
    deflater = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    return b"".join([*(deflater.compress(text) for _ in range(fault.repeat)), deflater.flush()])


def misrouted_call(call: Call, route: Route, other: str) -> Call:
    """The call that asks for the same about `other`, an account or a secret, without changing it."""
    owner, _, name = route.target.partition("/")
    if route.operation in CHANGES:
        return replace(call, method="GET", raw_path=f"/secrets/{other}", body=b"")
    place = rf"(?<=/){re.escape(name or owner)}(?=/|$)"
    path = re.sub(place, other, call.raw_path, flags=re.IGNORECASE)
    if route.operation == "regenerateKeys":
        path = re.sub("regenerateKeys", "listKeys", path, flags=re.IGNORECASE)
    return replace(call, raw_path=path)


async def hang(request: web.BaseRequest, closing: asyncio.Event) -> None:
    """Send nothing until the client disconnects (which cancels this) or the server closes; then drop the connection."""
    await closing.wait()
    reset(request)


def reset(request: web.BaseRequest) -> None:
    """Drop the connection without a reply."""
    if request.transport is not None:
        request.transport.abort()


async def truncate(request: web.BaseRequest, real: Reply) -> web.StreamResponse:
    """Announce the full length of the body, send half of it, and drop the connection."""
    payload = real.payload() or json.dumps({}).encode()
    response = web.StreamResponse(status=real.status, headers=real.headers)
    response.content_type = "application/json"
    response.content_length = len(payload)
    await response.prepare(request)
    await response.write(payload[: len(payload) // 2])
    await asyncio.sleep(0.02)  # abort() discards the send buffer: wait until the first half is sent
    reset(request)
    return response
