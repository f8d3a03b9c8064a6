"""Requests of the web server as calls, and replies as its responses."""

from __future__ import annotations

import uuid
from email.utils import formatdate

from aiohttp import web

from keysync.emulator.services.arm import arm_headers
from keysync.emulator.wire import Call, Reply, split_url


async def read_call(request: web.BaseRequest, scheme: str) -> Call:
    """The call that a request makes. Raises web.HTTPBadRequest for an invalid Host, as in ``[`` or ``localhost:x``."""
    if request.host and not split_url(f"//{request.host}").netloc:
        raise web.HTTPBadRequest(text="The header Host is not valid.")
    return Call(
        method=request.method,
        raw_path=request.rel_url.raw_path,
        query=request.rel_url.query,
        headers=request.headers,
        body=await request.read() if request.body_exists else b"",
        base=f"{scheme}://{request.host}",
        client=request.remote or "127.0.0.1",
    )


def response_of(call: Call, service: str, reply: Reply, now: float) -> web.Response:
    """The response of a service to a call, with the headers that the service adds. `now` is in seconds since 1970."""
    headers = {"Date": formatdate(now, usegmt=True), **_service_headers(call, service, now), **reply.headers}
    payload = reply.payload()
    if payload:
        headers.setdefault("Content-Type", "application/json; charset=utf-8")
    if reply.status == web.HTTPNoContent.status_code:
        return web.Response(status=reply.status, headers=headers)
    return web.Response(status=reply.status, body=payload, headers=headers)


def _service_headers(call: Call, service: str, now: float) -> dict[str, str]:
    if service == "batch":
        return _batch_headers(call)
    if service == "queue":
        return _queue_headers(call)
    headers = {"x-ms-request-id": str(uuid.uuid4()), "Cache-Control": "no-cache"}
    if service == "arm":
        headers |= arm_headers(call, now)
    if sent := call.headers.get("x-ms-client-request-id"):
        headers["x-ms-client-request-id"] = sent
    return headers


def _batch_headers(call: Call) -> dict[str, str]:
    headers = {"request-id": str(uuid.uuid4()), "DataServiceVersion": "3.0"}
    sent = call.headers.get("client-request-id")
    if sent and call.headers.get("return-client-request-id", "").lower() == "true":
        headers["client-request-id"] = sent
    return headers


def _queue_headers(call: Call) -> dict[str, str]:
    headers = {"x-ms-request-id": str(uuid.uuid4()), "Server": "Windows-Azure-Queue/1.0 Microsoft-HTTPAPI/2.0"}
    for name in ("x-ms-version", "x-ms-client-request-id"):
        if sent := call.headers.get(name):
            headers[name] = sent
    return headers
