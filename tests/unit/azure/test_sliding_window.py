"""The client-side limit of calls to one vault."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from keysync.azure.rate_limit import SlidingWindow


class Clock:
    """A clock that advances only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    async def sleep(self, seconds: float) -> None:
        """Advances the clock."""
        self.now += seconds
        await asyncio.sleep(0)


def window_of(count: int, seconds: float, clock: Clock) -> SlidingWindow:
    return SlidingWindow(count, seconds, monotonic=lambda: clock.now, sleep=clock.sleep)


@given(st.integers(1, 5), st.integers(1, 40), st.lists(st.floats(0, 3), max_size=40))
@settings(max_examples=100)
def test_no_window_has_more_calls_than_the_limit(count: int, calls: int, pauses: list[float]):
    """For any times of calls, no ten seconds have more calls than the service allows."""

    async def run() -> None:
        clock = Clock()
        window = window_of(count, 10.0, clock)
        times = []
        for number in range(calls):
            clock.now += pauses[number] if number < len(pauses) else 0.0
            await window.take()
            times.append(clock.now)
        for start in range(len(times) - count):
            assert times[start + count] - times[start] >= 10.0 - 1e-9

    asyncio.run(run())


async def test_calls_within_the_limit_are_not_delayed():
    """Only the first call above it is."""
    clock = Clock()
    window = window_of(300, 10.0, clock)
    for _ in range(300):
        await window.take()
    assert clock.now == 0.0
    await window.take()
    assert clock.now == 10.0


async def test_a_429_delays_all_calls_once():
    """All wait for the same time, then proceed in order."""
    clock = Clock()
    window = window_of(100, 10.0, clock)
    window.block(5.0)
    window.block(2.0)
    order: list[int] = []

    async def call(number: int) -> None:
        await window.take()
        order.append(number)

    await asyncio.gather(*(call(number) for number in range(20)))
    assert order == list(range(20))
    assert clock.now == 5.0


async def test_a_cancelled_wait_does_not_count_as_a_call():
    """The next call takes its place."""
    clock = Clock()
    window = window_of(1, 10.0, clock)
    await window.take()
    waiting = asyncio.create_task(window.take())
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await window.take()
    assert clock.now == 10.0
