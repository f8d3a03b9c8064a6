"""What holds for every reply: headers that bind the browser, who may ask, and no word of an exception."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web

LOOPBACK_ONLY: Final = web.AppKey("LOOPBACK_ONLY", bool)
"""Whether the server listens on loopback addresses alone."""

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Server": "keysync",
}
_PORT: Final = re.compile(r":[0-9]*$")

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:  # noqa: ARG001  # aiohttp's signature
    """A handler of `on_response_prepare`, which sees errors too."""
    response.headers.update(HEADERS)


@web.middleware
async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Refuses foreign names on loopback; an exception becomes a bare 500, since its text could hold anything."""
    if request.app.get(LOOPBACK_ONLY, False) and not _asks_for_loopback(request):
        return web.Response(
            status=403,
            text="This address serves its own machine: ask for localhost or 127.0.0.1, "
            "or set `listen` to an address that others may reach.\n",
        )
    try:
        return await handler(request)
    except web.HTTPException as answer:
        return web.Response(status=answer.status, text=answer.text, headers=_kept(answer))
    except Exception as error:  # noqa: BLE001  # whatever it is, the client and the log learn its type only
        structlog.get_logger("keysync").error("web.failed", path=request.path, error=type(error).__name__)
        return web.Response(status=500, text="500: keysync failed to answer; its log says more.\n")


def is_loopback_name(host: str) -> bool:
    """Whether a Host header, with or without a port, can only mean this machine: `localhost`, 127.0.0.0/8 or ::1."""
    name = _PORT.sub("", host.strip()).lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _asks_for_loopback(request: web.Request) -> bool:
    # A page elsewhere whose name was made to resolve to 127.0.0.1 (DNS rebinding) still sends that name. No browser
    # leaves it out; a plain HTTP/1.0 client may.
    return all(is_loopback_name(host) for host in request.headers.getall("Host", ()))


def _kept(answer: web.HTTPException) -> dict[str, str]:
    return {"Allow": answer.headers["Allow"]} if "Allow" in answer.headers else {}
