"""Stops the world for a test: each request is told when it came and again before its reply goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

Stage = Literal["before", "after"]
"""``before``: received whole, without effect yet. ``after``: the effect is there, the reply is not sent."""

OnRequest = Callable[[int, str, str, Stage], Awaitable[None]]
"""Told the request's number (from 0), its operation, its target and the stage.

The request is held while it awaits. It is cancelled when the client goes away, and a request that is held before its
effect then never has one.
"""


class Hooks:
    """Whom to tell of requests, if anybody."""

    def __init__(self) -> None:
        self._on_request: OnRequest | None = None
        self._count = 0

    def begin(self, on_request: OnRequest | None) -> None:
        """Tell of every request from now on, counted from 0; None ends it."""
        self._on_request, self._count = on_request, 0

    async def arrived(self, operation: str, target: str) -> Callable[[], Awaitable[None]]:
        """Tell of a request; returns what tells that it took effect."""
        index, on_request = self._count, self._on_request
        self._count += 1

        async def told(stage: Stage) -> None:
            if on_request is not None:
                await on_request(index, operation, target, stage)

        await told("before")
        return lambda: told("after")
