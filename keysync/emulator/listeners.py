"""Listeners on loopback, with and without TLS."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

LOOPBACK = "127.0.0.1"

_BIND_ATTEMPTS = 20
_SHUTDOWN_SECONDS = 0.5
"""How long requests in flight may take to finish when the listeners close, in seconds."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class _OwnErrors(logging.Filter):
    """Drops what aiohttp logs of a malformed request: it repeats a part of the request, such as the start of a token."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_LOGGER = logging.getLogger(__name__)
_LOGGER.addFilter(_OwnErrors())


class Listeners:
    """The open listeners. All listeners of one handler share a runner."""

    def __init__(self) -> None:
        self._runners: dict[Handler, web.ServerRunner] = {}

    async def open(self, handler: Handler, context: ssl.SSLContext | None, port: int = 0) -> int:
        """Serve `handler` on loopback and return the port (0 chooses a free one). Raises OSError if it is in use."""
        runner = await self._runner(handler)
        sockets = _bind_loopback(port)
        for listener in sockets:
            await web.SockSite(runner, listener, ssl_context=context, backlog=1024).start()
        return int(sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Close every listener and its connections."""
        for runner in self._runners.values():
            await runner.cleanup()
        self._runners.clear()

    async def _runner(self, handler: Handler) -> web.ServerRunner:
        if handler not in self._runners:
            # Handler cancellation ends a hanging request when its client disconnects.
            server = web.Server(handler, handler_cancellation=True, access_log=None, logger=_LOGGER)
            runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_SECONDS)
            await runner.setup()
            self._runners[handler] = runner
        return self._runners[handler]


def _bind_loopback(port: int) -> list[socket.socket]:
    """Listeners on 127.0.0.1 and, if the machine has IPv6, on the same port of ::1: `localhost` can mean either."""
    for _ in range(_BIND_ATTEMPTS):
        first = _bind(socket.AF_INET, LOOPBACK, port)
        try:
            return [first, _bind(socket.AF_INET6, "::1", int(first.getsockname()[1]))]
        except OSError as failure:
            if failure.errno != errno.EADDRINUSE or port:
                return [first]
            first.close()  # another process uses this port on ::1: try another free port
    raise OSError(errno.EADDRINUSE, "no port is free on both 127.0.0.1 and ::1")


def _bind(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
