"""Rules for every reply: security headers, allowed Host headers, and no exception text."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web

LOOPBACK_ONLY: Final = web.AppKey("LOOPBACK_ONLY", bool)
"""Whether the server listens on loopback addresses only."""

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
    """A handler of `on_response_prepare`, which runs for errors too."""
    response.headers.update(HEADERS)


@web.middleware
async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Refuse other host names on loopback. An exception becomes a 500 without its text, which could contain a secret."""
    if request.app.get(LOOPBACK_ONLY, False) and not _names_loopback(request):
        return web.Response(
            status=403,
            text="This address serves its own machine only: use localhost or 127.0.0.1, "
            "or set `listen` to an address that others can reach.\n",
        )
    try:
        return await handler(request)
    except web.HTTPException as error:
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return web.Response(status=error.status, text=error.text, headers=allow)
    except Exception as error:  # noqa: BLE001  # client and log get only the type of any error
        structlog.get_logger("keysync").error("web.failed", path=request.path, error=type(error).__name__)
        return web.Response(status=500, text="500: internal error; the log of keysync has its type.\n")


def is_loopback_name(host: str) -> bool:
    """Whether a Host header, with or without a port, can only mean this machine: `localhost`, 127.0.0.0/8 or ::1."""
    name = _PORT.sub("", host.strip()).lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _names_loopback(request: web.Request) -> bool:
    # DNS rebinding makes another site's name resolve to 127.0.0.1, but the browser still sends that name. Every browser
    # sends Host; an HTTP/1.0 client may omit it.
    return all(is_loopback_name(host) for host in request.headers.getall("Host", ()))
