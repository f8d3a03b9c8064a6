"""Tracks the sockets of a session, so that all are closed with it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final
from weakref import WeakSet

_MAX_WAIT_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.01


class Sockets:
    """Makes the sockets of a session (aiohttp's `socket_factory`) and closes them.

    A cancelled call leaves its TLS connection in shutdown, and aiohttp does not wait for that. If the event loop ends before,
    the socket stays open.
    """

    def __init__(self) -> None:
        self._sockets: WeakSet[socket.socket] = WeakSet()

    def __call__(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for one address, in the form of `socket.getaddrinfo`."""
        family, kind, protocol, *_ = info
        new_socket = socket.socket(family, kind, protocol)
        self._sockets.add(new_socket)
        return new_socket

    async def close(self) -> None:
        """Shuts down the open sockets and waits until the event loop has closed them, at most a second."""
        for open_socket in self._open():
            with suppress(OSError):  # never connected, or closed by the peer
                open_socket.shutdown(socket.SHUT_RDWR)
        with suppress(TimeoutError):
            async with asyncio.timeout(_MAX_WAIT_SECONDS):
                while self._open():  # noqa: ASYNC110  # asyncio has no event for it
                    await asyncio.sleep(_POLL_SECONDS)

    def _open(self) -> Sequence[socket.socket]:
        return [open_socket for open_socket in self._sockets if open_socket.fileno() >= 0]
