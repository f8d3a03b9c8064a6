"""Callbacks that a test installs: when a request arrives, before its reply is sent, and for the pair of both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from aiohttp import web

from keysync.emulator.wire import Call

Stage = Literal["before", "after"]
"""``before``: the request was received, and has no effect yet. ``after``: it took effect, and no reply is sent yet."""

OnRequest = Callable[[int, str, str, Stage], Awaitable[None]]
"""Receives the request's number (from 0), its operation, its target and the stage.

The request waits for it. If the client disconnects, the callback is cancelled; a request that is waiting in the stage
``before`` then never takes effect.
"""


OnExchange = Callable[[Call, web.Response], None]
"""Receives a request and its complete response, as the client gets it."""


class Hooks:
    """The installed callbacks, if any. Set `on_exchange` to receive every request of a service with its response."""

    def __init__(self) -> None:
        self.on_exchange: OnExchange | None = None
        self._on_request: OnRequest | None = None
        self._count = 0

    def install(self, on_request: OnRequest | None) -> None:
        """Call `on_request` for every request from now on, numbered from 0. None removes the callback."""
        self._on_request, self._count = on_request, 0

    async def before(self, operation: str, target: str) -> Callable[[], Awaitable[None]]:
        """Run the callback for a new request; returns the function that runs it for the stage ``after``."""
        index, on_request = self._count, self._on_request
        self._count += 1

        async def run(stage: Stage) -> None:
            if on_request is not None:
                await on_request(index, operation, target, stage)

        await run("before")
        return lambda: run("after")
