"""How a fault looks on the wire."""

from __future__ import annotations

import asyncio
import json
import zlib

from aiohttp import web

from keysync.emulator.entra import Entra
from keysync.emulator.faults import Fault
from keysync.emulator.wire import Call, Reply, error

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
_HTML = (
    "<!DOCTYPE html><html><head><title>Service unavailable</title></head>"
    "<body><h1>Our services aren't available right now</h1></body></html>"
)


def effect_first(fault: Fault) -> bool:
    """Whether the operation is carried out before the fault strikes."""
    return fault.after or fault.kind in {"truncated", "null_keys"}


def faulty_reply(fault: Fault, true: Reply | None, call: Call, service: str, entra: Entra) -> Reply:
    """The reply that a fault sends instead of the true one."""
    headers = dict(true.headers) if true is not None else {}
    headers.update(fault.headers)
    if fault.retry_after is not None:
        headers["Retry-After"] = fault.retry_after
    reply = _reply(fault, true, call, service, entra)
    reply.headers = {**reply.headers, **headers}
    return reply


def _reply(fault: Fault, true: Reply | None, call: Call, service: str, entra: Entra) -> Reply:
    if fault.kind == "null_keys":
        body = true.body if true is not None and isinstance(true.body, dict) else {}
        hollow = {"primary", "secondary", "value", "access_token"}
        return Reply(200, {name: None if name in hollow else value for name, value in body.items()})
    if fault.kind in {"html", "empty", "body"}:
        text = {"html": fault.body or _HTML, "empty": "", "body": fault.body or ""}[fault.kind]
        kind = "text/html; charset=utf-8" if fault.kind == "html" else "application/json; charset=utf-8"
        encoded = {"Content-Encoding": "gzip"} if fault.gzip else {}
        return Reply(fault.answer_status, _content(fault, text.encode()), {"Content-Type": kind, **encoded})
    code = fault.code or _CODES.get(fault.status, "Failed")
    if service == "entra":
        return entra.error(fault.status, code, fault.message, call)
    told = fault.message or f"A fault that was asked for: {code}."
    return error(fault.status, code, told, inner=fault.inner_code, details=fault.details)


def _content(fault: Fault, text: bytes) -> bytes:
    if not fault.gzip:
        return text * fault.repeat
    # Never as a whole, since it may be much longer than what is sent.
    deflater = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    return b"".join([*(deflater.compress(text) for _ in range(fault.repeat)), deflater.flush()])


async def hang(request: web.BaseRequest, closing: asyncio.Event) -> None:
    """Say nothing until the client goes away (which cancels this) or the server closes; then drop the connection."""
    await closing.wait()
    reset(request)


def reset(request: web.BaseRequest) -> None:
    """Drop the connection without a word."""
    if request.transport is not None:
        request.transport.abort()


async def truncate(request: web.BaseRequest, true: Reply) -> web.StreamResponse:
    """Promise the whole body, send half of it, and drop the connection."""
    payload = true.payload() or json.dumps({}).encode()
    response = web.StreamResponse(status=true.status, headers=true.headers)
    response.content_type = "application/json"
    response.content_length = len(payload)
    await response.prepare(request)
    await response.write(payload[: len(payload) // 2])
    await asyncio.sleep(0.02)  # an abort throws away what is still in the buffers; let the half go out first
    reset(request)
    return response
