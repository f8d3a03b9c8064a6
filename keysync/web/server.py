"""Listens on an address for as long as a block runs."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from keysync.errors import UsageError
from keysync.web.security import LOOPBACK_ONLY

_TRIES: Final = 20
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_MOST_CONNECTIONS: Final = 128
_PATIENCE: Final = 2.0
"""Seconds that replies in flight get when the server closes."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Where the server listens; `port` is the true one where 0 was asked for."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The page's address, without a slash at the end."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


@asynccontextmanager
async def open_server(app: web.Application, host: str, port: int) -> AsyncIterator[Bound]:
    """Serves `app`, made by `make_web_app` and used once, on `host` and `port` until the block ends.

    Port 0 takes a free one. A name that has several addresses, as `localhost` does, is served on all of them, and `::` on
    IPv4 too. Raises UsageError where the address cannot be bound.
    """
    listeners = await _bind(host, port)
    bound = Bound(host, int(listeners[0].getsockname()[1]))
    app[LOOPBACK_ONLY] = all(ipaddress.ip_address(one.getsockname()[0]).is_loopback for one in listeners)
    servers: list[asyncio.Server] = []
    runner = web.AppRunner(app, access_log=None, logger=_logger(), shutdown_timeout=_PATIENCE)
    try:
        await runner.setup()
        crowd = ConnectionLimit(runner.server)
        create = asyncio.get_running_loop().create_server
        servers += [await create(crowd, sock=listener, backlog=128) for listener in listeners]
        yield bound
    finally:
        for server in servers:
            server.close()
        await runner.cleanup()
        for listener in listeners:
            listener.close()


async def check_free(host: str, port: int) -> None:
    """Raises UsageError where `open_server` could not listen on `host` and `port` now."""
    for listener in await _bind(host, port):
        listener.close()


class ConnectionLimit:
    """Makes the protocols of connections, of which so many are open at most: one more, and the oldest has to go.

    Whoever opens connections and says nothing must not use up the files that the calls to Azure need.
    """

    def __init__(self, make: Callable[[], asyncio.Protocol] | None) -> None:
        if make is None:
            raise AssertionError("the runner was not set up")
        self._make = make
        self._open: dict[asyncio.Protocol, bool] = {}  # whether it was seen connected

    def __call__(self) -> asyncio.Protocol:
        for protocol, connected in list(self._open.items()):
            if _transport_of(protocol) is not None:
                self._open[protocol] = True
            elif connected:
                del self._open[protocol]
        while len(self._open) >= _MOST_CONNECTIONS:
            oldest = next(iter(self._open))
            del self._open[oldest]
            transport = _transport_of(oldest)
            if transport is not None:
                transport.abort()
        made = self._make()
        self._open[made] = False
        return made


def _transport_of(protocol: asyncio.Protocol) -> asyncio.Transport | None:
    transport: asyncio.Transport | None = getattr(protocol, "transport", None)
    return None if transport is None or transport.is_closing() else transport


def _logger() -> logging.Logger:
    logger = logging.getLogger("keysync.web")
    logger.addFilter(_is_ours)
    return logger


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a record tells a fault of ours: what is no HTTP gets its 400, and could otherwise fill the log with errors."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


async def _bind(host: str, port: int) -> list[socket.socket]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys((family, address[0]) for family, _, _, _, address in found))
        return _bind_all([(family, str(address)) for family, address in addresses], port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            told = "Address already in use: end what listens there, or set `listen` to another port"
        else:
            told = error.strerror or str(error)
        raise UsageError(f"listen {host}:{port}: {told}") from error


def _bind_all(addresses: list[tuple[int, str]], port: int) -> list[socket.socket]:
    """Listeners on one port of every address that this machine has, which is at least one of them."""
    for _ in range(_TRIES):
        listeners: list[socket.socket] = []
        chosen, failure = port, None
        for family, address in addresses:
            try:
                listeners.append(_listener(family, address, chosen))
                chosen = int(listeners[0].getsockname()[1])
            except OSError as error:
                failure = error
        if listeners and (failure is None or failure.errno in _NOT_HERE):
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
