"""A monotonic clock whose sleepers wake in order without real waiting."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Coroutine
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

_TURNS = 20  # of the loop, after which every task that needs no time has continued


class VirtualClock:
    """`monotonic` and `sleep` to pass as arguments; `run` moves time from one sleeper to the next."""

    def __init__(self, start: float = 1000.0) -> None:
        self.time = start
        self.sleeps: list[float] = []
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        """The time, in seconds."""
        return self.time

    async def sleep(self, seconds: float) -> None:
        """Sleeps until `run` reaches that time."""
        self.sleeps.append(seconds)
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.time + max(seconds, 0.0), next(self._order), woken))
        await woken

    async def settle(self) -> None:
        """Lets every task continue that needs no time."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work` with time passing as fast as possible, and returns its result."""
        task = asyncio.ensure_future(work)
        await self.settle()
        while not task.done():
            assert self._sleepers, "all tasks wait, but none of them sleeps"
            self.time, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
            await self.settle()
        return task.result()


def seeded(seed: int = 1) -> Random:
    """A random generator with a fixed seed."""
    return Random(seed)  # noqa: S311  # no secret depends on it
