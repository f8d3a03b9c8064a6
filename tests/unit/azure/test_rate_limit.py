"""Calls are spaced out before Azure has to refuse them, and after a refusal nobody storms."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keysync.azure.rate_limit import ArmRateLimiter, RateLimitPolicy
from tests.support.virtual_clock import VirtualClock

WRITES = "x-ms-ratelimit-remaining-subscription-writes"
KEY = ("subscription", "principal")


class World:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.rate_limiter = ArmRateLimiter(RateLimitPolicy(sleep=self.clock.sleep, monotonic=self.clock.monotonic))
        self.sent: list[float] = []

    async def call(
        self, remaining: int | None = None, *, retry_after: float | None = None, seconds: float = 0.0
    ) -> None:
        """One call whose reply says what is left, or is a refusal."""
        async with self.rate_limiter.acquire(KEY) as slot:
            self.sent.append(round(self.clock.time - 1000.0, 6))
            if seconds:
                await self.clock.sleep(seconds)
            if remaining is not None:
                slot.replied({WRITES: str(remaining)})
            if retry_after is not None:
                slot.throttled(retry_after)

    async def calls(self, count: int, remaining: int | None = None) -> None:
        await asyncio.gather(*(self.call(remaining) for _ in range(count)))


async def soon() -> None:
    """What was just begun has begun, and no time has passed."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def world() -> World:
    return World()


async def test_nothing_waits_while_nothing_is_known(world: World):
    """A reply without the headers, or none at all, paces nobody."""
    await world.clock.run(world.calls(500))
    assert world.clock.sleeps == []


async def test_nothing_waits_while_there_is_enough(world: World):
    """Above the floor calls go as they come."""
    await world.clock.run(world.call(199))
    await world.clock.run(world.calls(178))
    assert world.clock.sleeps == []
    await world.clock.run(world.calls(3))
    assert world.sent[-3:] == [0.0, 0.1, 0.2]


async def test_at_the_floor_calls_go_at_the_rate_of_the_refill(world: World):
    """Ten a second, in the order in which they came."""
    await world.clock.run(world.call(20))
    await world.clock.run(world.calls(5))
    assert world.sent == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]


async def test_what_is_left_comes_back_with_time(world: World):
    """After a pause there is room for a burst again, and no more than the bucket holds."""
    await world.clock.run(world.call(20))
    world.clock.time += 3.0
    await world.clock.run(world.calls(30))
    assert world.clock.sleeps == []
    await world.clock.run(world.calls(1))
    assert world.sent[-1] == 3.1
    world.clock.time += 3600.0
    await world.clock.run(world.calls(181))
    assert len(world.clock.sleeps) == 2


async def test_a_reply_that_tells_of_more_ends_the_pacing(world: World):
    """The service knows better than any calculation."""
    await world.clock.run(world.call(20))
    await world.clock.run(world.call(150))
    await world.clock.run(world.calls(100))
    assert world.sent[1:] == [0.1] * 101


async def test_calls_under_way_are_taken_off_what_is_left(world: World):
    """A number that the service made before it saw the others is no licence for twice as many."""

    async def both() -> None:
        slow = [asyncio.create_task(world.call(seconds=60.0)) for _ in range(30)]
        await soon()
        await world.call(55)
        await world.calls(8)
        await asyncio.gather(*slow)

    await world.clock.run(both())
    assert world.sent[31:] == [0.0] * 5 + [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("headers", "paced"),
    [
        ({WRITES.title(): "5"}, True),
        ({"x-ms-ratelimit-remaining-subscription-global-writes": "5", WRITES: "199"}, True),
        ({"x-ms-ratelimit-remaining-subscription-resource-requests": "Microsoft.Batch/listKeys;5"}, True),
        ({"x-ms-ratelimit-remaining-subscription-reads": "5"}, False),
        ({WRITES: ""}, False),
        ({WRITES: "many"}, False),
        ({WRITES: "9" * 5000}, False),
        ({WRITES: "NaN"}, False),
        ({}, False),
    ],
)
async def test_headers_are_read_with_care(world: World, headers: dict[str, str], paced: bool):
    """The smallest number counts, whatever its case; what is no number is not there."""

    async def call() -> None:
        async with world.rate_limiter.acquire(KEY) as slot:
            slot.replied(headers)

    await world.clock.run(call())
    await world.clock.run(world.call())
    assert bool(world.clock.sleeps) is paced


async def test_after_a_refusal_all_wait_once_and_then_come_one_by_one(world: World):
    """One timer for the wait, then the rate of the refill: no storm."""
    await world.clock.run(world.call(0, retry_after=17.0))
    assert world.rate_limiter.blocked_for(KEY) == 17.0
    await world.clock.run(world.calls(4))
    assert world.sent[1:] == [17.0, 17.1, 17.2, 17.3]
    assert world.clock.sleeps[0] == 17.0
    assert len(world.clock.sleeps) == 4
    assert world.rate_limiter.blocked_for(KEY) == 0.0


async def test_many_refusals_are_one_wait(world: World):
    """The latest end counts; a refusal that asks for less shortens nothing."""

    async def storm() -> None:
        await asyncio.gather(*(world.call(0, retry_after=seconds, seconds=1.0) for seconds in (7.0, 9.0, 2.0)))
        await world.calls(2)

    await world.clock.run(storm())
    assert world.sent[3:] == [10.0, 10.1]


async def test_a_late_reply_does_not_end_the_wait(world: World):
    """A call that was let through before the refusal says nothing of after it."""

    async def both() -> None:
        late = asyncio.create_task(world.call(180, seconds=2.0))
        await soon()
        await world.call(0, retry_after=5.0)
        await late
        await world.calls(3)

    await world.clock.run(both())
    assert world.sent[2:] == [5.0, 5.1, 5.2]


async def test_a_refusal_while_others_wait_for_their_turn_holds_them_too(world: World):
    """Who is already in the queue waits for the new end."""

    async def both() -> None:
        await world.call(20)
        throttled = asyncio.create_task(world.call(retry_after=30.0, seconds=0.05))
        await soon()
        await world.calls(2)
        await throttled

    await world.clock.run(both())
    assert world.sent == [0.0, 0.1, 30.15, 30.25]


async def test_a_refusal_without_a_time_holds_for_a_second(world: World):
    """Something is better than a hammer."""

    async def throttled() -> None:
        async with world.rate_limiter.acquire(KEY) as slot:
            slot.throttled(None)

    await world.clock.run(throttled())
    await world.clock.run(world.calls(1))
    assert world.sent == [1.0]


async def test_no_reply_shuts_a_bucket_for_good(world: World):
    """A Retry-After of years is an hour."""
    await world.clock.run(world.call(0, retry_after=1e9))
    assert world.rate_limiter.blocked_for(KEY) == 3600.0
    await world.clock.run(world.calls(1))
    assert world.sent[-1] == 3600.0


async def test_who_is_cancelled_takes_nobody_s_turn(world: World):
    """First or last in the queue, its place is filled by the next and no token is spent."""

    async def some() -> None:
        await world.call(20)
        tasks = [asyncio.create_task(world.call()) for _ in range(5)]
        await soon()
        for index in (0, 2, 4):
            tasks[index].cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in ended] == [True, False, True, False, True]

    await world.clock.run(some())
    assert world.sent == [0.0, 0.1, 0.2]


async def test_a_call_that_fails_is_not_under_way_for_ever(world: World):
    """Whatever ends a call, it is no longer taken off what is left."""

    async def fails() -> None:
        async with world.rate_limiter.acquire(KEY):
            raise ConnectionResetError

    for _ in range(100):
        with pytest.raises(ConnectionResetError):
            await world.clock.run(fails())
    await world.clock.run(world.call(60))
    await world.clock.run(world.calls(40))
    assert world.clock.sleeps == []


async def test_buckets_do_not_wait_for_one_another(world: World):
    """One subscription that is refused is its own affair."""
    await world.clock.run(world.call(0, retry_after=600.0))

    async def other() -> float:
        async with world.rate_limiter.acquire(("another", "principal")):
            return world.clock.time

    assert await world.clock.run(other()) == 1000.0
    assert world.rate_limiter.blocked_for(("another", "principal")) == 0.0
    assert world.rate_limiter.blocked_for("never seen") == 0.0


class Service:
    """Resource Manager's bucket: 200, 10 a second; counts what it refuses."""

    def __init__(self, clock: VirtualClock, left: float) -> None:
        self.clock, self.left, self.at, self.throttled = clock, left, clock.time, 0

    def take(self) -> int | None:
        """What is left after one more call, or None where it is refused."""
        self.left = min(200.0, self.left + (self.clock.time - self.at) * 10.0)
        self.at = self.clock.time
        if self.left < 1:
            self.throttled += 1
            return None
        self.left -= 1
        return int(self.left)


@settings(max_examples=25)
@given(st.integers(1, 300), st.integers(1, 64), st.lists(st.floats(0.01, 0.6), min_size=1, max_size=7))
def test_a_fleet_is_never_refused_and_not_much_slower_than_it_must_be(
    accounts: int, width: int, latencies: list[float]
):
    """With a full bucket, whatever the latency and the width, nothing is refused."""

    async def scenario() -> tuple[int, float]:
        clock = VirtualClock()
        service = Service(clock, 200.0)
        rate_limiter = ArmRateLimiter(RateLimitPolicy(sleep=clock.sleep, monotonic=clock.monotonic))
        gate = asyncio.Semaphore(width)

        async def call(index: int) -> None:
            async with gate, rate_limiter.acquire(KEY) as slot:
                await clock.sleep(latencies[index % len(latencies)] / 2)
                left = service.take()
                await clock.sleep(latencies[(index * 3) % len(latencies)] / 2)
                slot.replied({WRITES: str(left or 0)})
                if left is None:
                    slot.throttled(1.0)

        async def all_of_them() -> None:
            await asyncio.gather(*(call(index) for index in range(accounts)))

        await clock.run(all_of_them())
        return service.throttled, clock.time - 1000.0

    throttled, took = asyncio.run(scenario())
    assert throttled == 0
    unpaced = max(latencies) * (accounts / width + 1)
    assert took <= unpaced + max(0, accounts - 100) / 10 + 1.0


@settings(max_examples=25)
@given(st.integers(0, 60), st.integers(1, 64))
def test_a_bucket_that_others_have_emptied_is_not_stormed(left: int, width: int):
    """After the calls that nobody could know better about, what is refused is refused once: no wave after wave."""

    async def scenario() -> tuple[int, int]:
        clock = VirtualClock()
        service = Service(clock, float(left))
        rate_limiter = ArmRateLimiter(RateLimitPolicy(sleep=clock.sleep, monotonic=clock.monotonic))
        gate, done = asyncio.Semaphore(width), 0

        async def call() -> None:
            nonlocal done
            while True:
                async with gate, rate_limiter.acquire(KEY) as slot:
                    await clock.sleep(0.02)
                    remaining = service.take()
                    await clock.sleep(0.02)
                    slot.replied({WRITES: str(remaining or 0)})
                    if remaining is not None:
                        done += 1
                        return
                    slot.throttled(5.0)

        async def all_of_them() -> None:
            await asyncio.gather(*(call() for _ in range(120)))

        await clock.run(all_of_them())
        return service.throttled, done

    throttled, done = asyncio.run(scenario())
    assert done == 120
    assert throttled <= width
