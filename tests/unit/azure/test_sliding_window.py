"""A vault's own limit, kept to on this side of the wire."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from keysync.azure.rate_limit import SlidingWindow


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    async def sleep(self, seconds: float) -> None:
        """Lets it pass."""
        self.now += seconds
        await asyncio.sleep(0)


def limit(count: int, seconds: float, clock: Clock) -> SlidingWindow:
    return SlidingWindow(count, seconds, monotonic=lambda: clock.now, sleep=clock.sleep)


@given(st.integers(1, 5), st.integers(1, 40), st.lists(st.floats(0, 3), max_size=40))
@settings(max_examples=100)
def test_no_window_ever_holds_more_than_the_limit(count: int, calls: int, pauses: list[float]):
    """Whenever callers come, no span of ten seconds has more calls than the service grants."""

    async def run() -> None:
        clock = Clock()
        window = limit(count, 10.0, clock)
        made = []
        for number in range(calls):
            clock.now += pauses[number] if number < len(pauses) else 0.0
            await window.take()
            made.append(clock.now)
        for start in range(len(made) - count):
            assert made[start + count] - made[start] >= 10.0 - 1e-9

    asyncio.run(run())


async def test_within_the_limit_nobody_waits():
    """A fleet that stays below the limit is as fast as without one."""
    clock = Clock()
    window = limit(300, 10.0, clock)
    for _ in range(300):
        await window.take()
    assert clock.now == 0.0
    await window.take()
    assert clock.now == 10.0


async def test_a_429_holds_everybody_once():
    """Who waits for the service's own time waits together, and then goes on in order."""
    clock = Clock()
    window = limit(100, 10.0, clock)
    window.block(5.0)
    window.block(2.0)
    order: list[int] = []

    async def call(number: int) -> None:
        await window.take()
        order.append(number)

    await asyncio.gather(*(call(number) for number in range(20)))
    assert order == list(range(20))
    assert clock.now == 5.0


async def test_a_call_that_was_given_up_takes_nobodys_place():
    """A cancelled wait leaves the queue as it was."""
    clock = Clock()
    window = limit(1, 10.0, clock)
    await window.take()
    waiting = asyncio.create_task(window.take())
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await window.take()
    assert clock.now == 10.0
