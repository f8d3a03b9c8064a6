"""The HTTP server of the daemon: listeners and the limit of connections."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from keysync.errors import UsageError
from keysync.web.security import LOOPBACK_ONLY

_NO_SUCH_ADDRESS: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_MAX_CONNECTIONS: Final = 128
_SHUTDOWN_SECONDS: Final = 2.0
"""How long replies in flight may take to finish when the server closes, in seconds."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The address of a running server. `port` is the actual one if port 0 was requested."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The URL of the page, without a trailing slash."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


@asynccontextmanager
async def open_server(app: web.Application, host: str, port: int) -> AsyncGenerator[Bound]:
    """Serve `app` (of `make_web_app`, used once) on `host` and `port` until the block ends.

    Port 0 means a free port. A name with several addresses, such as `localhost`, is served on all of them, and `::` on IPv4
    too. Raises UsageError if the address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        listeners = [stack.enter_context(listener) for listener in await _bind(host, port)]
        app[LOOPBACK_ONLY] = all(ipaddress.ip_address(each.getsockname()[0]).is_loopback for each in listeners)
        runner = web.AppRunner(app, access_log=None, logger=_logger(), shutdown_timeout=_SHUTDOWN_SECONDS)
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        server = runner.server
        if server is None:
            raise AssertionError("the runner was not set up")

        def connect() -> asyncio.Protocol:
            # Just before this connection is made: others may be accepted meanwhile.
            loop.call_soon(_close_oldest, server)
            return server()

        # Not by aiohttp's sites, which have no limit of connections.
        for listener in listeners:
            stack.callback((await loop.create_server(connect, sock=listener, backlog=128)).close)
        yield Bound(host, int(listeners[0].getsockname()[1]))


def _close_oldest(server: web.Server) -> None:
    """Keeps a free connection. Idle connections must not use up the file descriptors that the calls to Azure need."""
    transports = (handler.transport for handler in server.connections)
    connected = [transport for transport in transports if transport is not None and not transport.is_closing()]
    for transport in connected[: max(0, len(connected) - _MAX_CONNECTIONS + 1)]:
        transport.abort()


async def check_free(host: str, port: int) -> None:
    """Raise UsageError if `open_server` cannot listen on `host` and `port` now."""
    for listener in await _bind(host, port):
        listener.close()


def _logger() -> logging.Logger:
    logger = logging.getLogger("keysync.web")
    logger.addFilter(_is_not_bad_http)
    return logger


def _is_not_bad_http(record: logging.LogRecord) -> bool:
    """Drops the records of malformed requests, which get a 400 and could otherwise fill the log."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


async def _bind(host: str, port: int) -> list[socket.socket]:
    """Listeners on the same port of every address of `host` that this machine has."""
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return _listen({(family, str(address[0])): None for family, _, _, _, address in infos}, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "Address already in use: stop the program that uses it, or set `listen` to another port"
        else:
            reason = error.strerror or str(error)
        raise UsageError(f"listen {host}:{port}: {reason}") from error


def _listen(addresses: Iterable[tuple[int, str]], port: int) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    missing = OSError(errno.EADDRNOTAVAIL, "the name has no address")
    with ExitStack() as stack:
        for family, address in addresses:
            both = address == "::" and socket.has_dualstack_ipv6()
            try:
                listener = socket.create_server((address, port), family=family, backlog=128, dualstack_ipv6=both)
            except OSError as error:
                if error.errno not in _NO_SUCH_ADDRESS:
                    raise
                missing = error
            else:
                listeners.append(stack.enter_context(listener))
                port = int(listener.getsockname()[1])
        if not listeners:
            raise missing
        stack.pop_all()
        return listeners
