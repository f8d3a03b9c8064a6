"""A monotonic clock whose sleepers wake in order without anybody waiting."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Coroutine
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

_TURNS = 20  # of the loop, after which whatever can go on without time has gone on


class VirtualClock:
    """`monotonic` and `sleep` to hand in; `run` lets time pass from one sleeper to the next."""

    def __init__(self, start: float = 1000.0) -> None:
        self.time = start
        self.sleeps: list[float] = []
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        """The time, in seconds."""
        return self.time

    async def sleep(self, seconds: float) -> None:
        """Sleeps until `run` has come so far."""
        self.sleeps.append(seconds)
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.time + max(seconds, 0.0), next(self._order), woken))
        await woken

    async def settle(self) -> None:
        """Lets everything go on that needs no time."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns, with time passing as fast as it can."""
        task = asyncio.ensure_future(work)
        await self.settle()
        while not task.done():
            assert self._sleepers, "everybody waits and nobody sleeps"
            self.time, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
            await self.settle()
        return task.result()


def seeded(seed: int = 1) -> Random:
    """Chance that is the same each time."""
    return Random(seed)  # noqa: S311  # no secret depends on it
