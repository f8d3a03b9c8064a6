"""The HTTP server of the daemon: listeners and the limit of connections."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from keysync.errors import UsageError
from keysync.web.security import LOOPBACK_ONLY

_BIND_ATTEMPTS: Final = 20
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
    listeners = await _bind(host, port)
    bound = Bound(host, int(listeners[0].getsockname()[1]))
    app[LOOPBACK_ONLY] = all(ipaddress.ip_address(listener.getsockname()[0]).is_loopback for listener in listeners)
    servers: list[asyncio.Server] = []
    runner = web.AppRunner(app, access_log=None, logger=_logger(), shutdown_timeout=_SHUTDOWN_SECONDS)
    try:
        await runner.setup()
        factory = ConnectionLimit(runner.server)
        create = asyncio.get_running_loop().create_server
        servers += [await create(factory, sock=listener, backlog=128) for listener in listeners]
        yield bound
    finally:
        for server in servers:
            server.close()
        await runner.cleanup()
        for listener in listeners:
            listener.close()


async def check_free(host: str, port: int) -> None:
    """Raise UsageError if `open_server` cannot listen on `host` and `port` now."""
    for listener in await _bind(host, port):
        listener.close()


class ConnectionLimit:
    """A protocol factory that closes the oldest connection when more than 128 are open.

    Idle connections must not use up the file descriptors that the calls to Azure need.
    """

    def __init__(self, make: Callable[[], asyncio.Protocol] | None) -> None:
        if make is None:
            raise AssertionError("the runner was not set up")
        self._make = make
        self._open: dict[asyncio.Protocol, bool] = {}  # value: whether it has been connected

    def __call__(self) -> asyncio.Protocol:
        for protocol, connected in list(self._open.items()):
            if _transport_of(protocol) is not None:
                self._open[protocol] = True
            elif connected:
                del self._open[protocol]
        while len(self._open) >= _MAX_CONNECTIONS:
            oldest = next(iter(self._open))
            del self._open[oldest]
            transport = _transport_of(oldest)
            if transport is not None:
                transport.abort()
        protocol = self._make()
        self._open[protocol] = False
        return protocol


def _transport_of(protocol: asyncio.Protocol) -> asyncio.Transport | None:
    transport: asyncio.Transport | None = getattr(protocol, "transport", None)
    return None if transport is None or transport.is_closing() else transport


def _logger() -> logging.Logger:
    logger = logging.getLogger("keysync.web")
    logger.addFilter(_is_not_bad_http)
    return logger


def _is_not_bad_http(record: logging.LogRecord) -> bool:
    """Drops the records of malformed requests, which get a 400 and could otherwise fill the log."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


async def _bind(host: str, port: int) -> list[socket.socket]:
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys((family, address[0]) for family, _, _, _, address in infos))
        return _bind_all([(family, str(address)) for family, address in addresses], port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "Address already in use: stop the program that uses it, or set `listen` to another port"
        else:
            reason = error.strerror or str(error)
        raise UsageError(f"listen {host}:{port}: {reason}") from error


def _bind_all(addresses: list[tuple[int, str]], port: int) -> list[socket.socket]:
    """Listeners on the same port of every address that this machine has. Raises OSError if it has none of them."""
    for _ in range(_BIND_ATTEMPTS):
        listeners: list[socket.socket] = []
        chosen, failure = port, None
        for family, address in addresses:
            try:
                listeners.append(_listener(family, address, chosen))
                chosen = int(listeners[0].getsockname()[1])
            except OSError as error:
                failure = error
        if listeners and (failure is None or failure.errno in _NO_SUCH_ADDRESS):
            return listeners
        for listener in listeners:
            listener.close()
        if failure is not None and (port or failure.errno != errno.EADDRINUSE):
            raise failure
    raise OSError(errno.EADDRINUSE, "no port is free on every address")


def _listener(family: int, address: str, port: int) -> socket.socket:
    listener = socket.create_server(
        (address, port), family=family, backlog=128, dualstack_ipv6=address == "::" and socket.has_dualstack_ipv6()
    )
    listener.setblocking(False)
    return listener
