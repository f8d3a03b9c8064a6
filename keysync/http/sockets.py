"""The sockets of a session, so that none outlives it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final
from weakref import WeakSet

_SECONDS: Final = 1.0
_PAUSE: Final = 0.01


class Sockets:
    """Makes the sockets of a session (aiohttp's `socket_factory`), and sees to it that they are closed.

    A call that is given up leaves its TLS connection to take leave of the other side, which nobody waits for: a loop that ends
    meanwhile leaves the socket open.
    """

    def __init__(self) -> None:
        self._made: WeakSet[socket.socket] = WeakSet()

    def __call__(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for one address, as `socket.getaddrinfo` tells it."""
        family, kind, protocol, *_ = info
        made = socket.socket(family, kind, protocol)
        self._made.add(made)
        return made

    async def close(self) -> None:
        """Ends what is still connected, and waits until the loop has closed it, a second at most."""
        for one in self._open():
            with suppress(OSError):  # it was never connected, or the other side was faster
                one.shutdown(socket.SHUT_RDWR)
        with suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS):
                while self._open():  # noqa: ASYNC110  # nothing tells of it
                    await asyncio.sleep(_PAUSE)

    def _open(self) -> Sequence[socket.socket]:
        return [one for one in self._made if one.fileno() >= 0]
