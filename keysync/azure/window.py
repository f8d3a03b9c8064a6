"""A limit of so many calls in so many seconds, kept to by the client itself: who never goes beyond it meets no 429."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable


class WindowLimit:
    """At most `count` calls in any `seconds`, first come, first served; more wait. For one event loop.

    `hold` keeps everybody waiting, once, where the service has said 429 all the same: somebody else calls it too.
    """

    def __init__(
        self,
        count: int,
        seconds: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._count = count
        self._seconds = seconds
        self._monotonic = monotonic
        self._sleep = sleep
        self._calls: deque[float] = deque()
        self._queue = asyncio.Lock()  # fair, and one timer for all who wait
        self._held_until = float("-inf")

    async def take(self) -> None:
        """Returns when one more call may be made."""
        async with self._queue:
            while (pause := self._pause()) > 0:
                await self._sleep(pause)
            self._calls.append(self._monotonic())

    def hold(self, seconds: float) -> None:
        """Nobody calls for so many seconds from now."""
        self._held_until = max(self._held_until, self._monotonic() + seconds)

    def _pause(self) -> float:
        now = self._monotonic()
        while self._calls and self._calls[0] + self._seconds <= now:
            self._calls.popleft()
        full = self._calls[0] + self._seconds - now if len(self._calls) >= self._count else 0.0
        return max(full, self._held_until - now)
