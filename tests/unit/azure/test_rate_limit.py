"""Calls are delayed before Azure refuses them, and do not all restart at once after a refusal."""

from __future__ import annotations

import asyncio

import pytest
from azure.core.utils import CaseInsensitiveDict
from hypothesis import given, settings
from hypothesis import strategies as st

from keysync.azure.rate_limit import ON_REPLY, RateLimitPolicy, TokenBucket
from tests.support.virtual_clock import VirtualClock

WRITES = "x-ms-ratelimit-remaining-subscription-writes"


def replied(headers: dict[str, str]) -> None:
    """Passes the headers of a reply to the current call, as the client's pipeline does."""
    on_reply = ON_REPLY.get()
    assert on_reply is not None
    on_reply(CaseInsensitiveDict(headers))


class World:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.bucket = TokenBucket(RateLimitPolicy(sleep=self.clock.sleep, monotonic=self.clock.monotonic))
        self.sent: list[float] = []

    async def call(
        self, remaining: int | None = None, *, retry_after: float | None = None, seconds: float = 0.0
    ) -> None:
        """One call whose reply has the remaining number, or is a 429."""
        async with self.bucket.slot():
            self.sent.append(round(self.clock.time - 1000.0, 6))
            if seconds:
                await self.clock.sleep(seconds)
            if remaining is not None:
                replied({WRITES: str(remaining)})
            if retry_after is not None:
                self.bucket.block(retry_after)

    async def calls(self, count: int, remaining: int | None = None) -> None:
        await asyncio.gather(*(self.call(remaining) for _ in range(count)))


async def let_tasks_start() -> None:
    """Lets new tasks start while no time passes."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def world() -> World:
    return World()


async def test_calls_are_not_delayed_without_headers(world: World):
    """Neither after a reply without them nor without a reply."""
    await world.clock.run(world.calls(500))
    assert world.clock.sleeps == []


async def test_calls_above_the_floor_are_not_delayed(world: World):
    """The delay begins at the floor."""
    await world.clock.run(world.call(199))
    await world.clock.run(world.calls(178))
    assert world.clock.sleeps == []
    await world.clock.run(world.calls(3))
    assert world.sent[-3:] == [0.0, 0.1, 0.2]


async def test_calls_at_the_floor_are_sent_at_the_refill_rate(world: World):
    """Ten per second, in order."""
    await world.clock.run(world.call(20))
    await world.clock.run(world.calls(5))
    assert world.sent == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]


async def test_the_bucket_refills_over_time(world: World):
    """After a pause a burst is possible again, up to the capacity."""
    await world.clock.run(world.call(20))
    world.clock.time += 3.0
    await world.clock.run(world.calls(30))
    assert world.clock.sleeps == []
    await world.clock.run(world.calls(1))
    assert world.sent[-1] == 3.1
    world.clock.time += 3600.0
    await world.clock.run(world.calls(181))
    assert len(world.clock.sleeps) == 2


async def test_a_reply_with_a_higher_number_ends_the_delay(world: World):
    """The service's number replaces the calculated one."""
    await world.clock.run(world.call(20))
    await world.clock.run(world.call(150))
    await world.clock.run(world.calls(100))
    assert world.sent[1:] == [0.1] * 101


async def test_calls_in_flight_are_subtracted(world: World):
    """The service may have sent its number before it counted them."""

    async def scenario() -> None:
        slow = [asyncio.create_task(world.call(seconds=60.0)) for _ in range(30)]
        await let_tasks_start()
        await world.call(55)
        await world.calls(8)
        await asyncio.gather(*slow)

    await world.clock.run(scenario())
    assert world.sent[31:] == [0.0] * 5 + [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("headers", "delayed"),
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
async def test_the_lowest_valid_number_counts(world: World, headers: dict[str, str], delayed: bool):
    """The case of header names and invalid numbers are ignored."""

    async def call() -> None:
        async with world.bucket.slot():
            replied(headers)

    await world.clock.run(call())
    await world.clock.run(world.call())
    assert bool(world.clock.sleeps) is delayed


async def test_calls_after_a_429_wait_and_then_start_one_by_one(world: World):
    """There is one timer for the wait; then calls are sent at the refill rate."""
    await world.clock.run(world.call(0, retry_after=17.0))
    assert world.bucket.blocked_for() == 17.0
    await world.clock.run(world.calls(4))
    assert world.sent[1:] == [17.0, 17.1, 17.2, 17.3]
    assert world.clock.sleeps[0] == 17.0
    assert len(world.clock.sleeps) == 4
    assert world.bucket.blocked_for() == 0.0


async def test_several_429_cause_one_wait(world: World):
    """The latest end counts; a shorter Retry-After does not shorten the wait."""

    async def storm() -> None:
        await asyncio.gather(*(world.call(0, retry_after=seconds, seconds=1.0) for seconds in (7.0, 9.0, 2.0)))
        await world.calls(2)

    await world.clock.run(storm())
    assert world.sent[3:] == [10.0, 10.1]


async def test_a_late_reply_does_not_end_the_wait(world: World):
    """The reply to a call from before the 429 is out of date."""

    async def scenario() -> None:
        late = asyncio.create_task(world.call(180, seconds=2.0))
        await let_tasks_start()
        await world.call(0, retry_after=5.0)
        await late
        await world.calls(3)

    await world.clock.run(scenario())
    assert world.sent[2:] == [5.0, 5.1, 5.2]


async def test_a_429_also_delays_calls_in_the_queue(world: World):
    """They wait for the new end."""

    async def scenario() -> None:
        await world.call(20)
        throttled = asyncio.create_task(world.call(retry_after=30.0, seconds=0.05))
        await let_tasks_start()
        await world.calls(2)
        await throttled

    await world.clock.run(scenario())
    assert world.sent == [0.0, 0.1, 30.15, 30.25]


async def test_a_429_without_retry_after_blocks_for_a_second(world: World):
    """The default of the policy."""

    async def throttled() -> None:
        async with world.bucket.slot():
            world.bucket.block(None)

    await world.clock.run(throttled())
    await world.clock.run(world.calls(1))
    assert world.sent == [1.0]


async def test_no_reply_blocks_a_bucket_for_good(world: World):
    """A Retry-After of years counts as an hour."""
    await world.clock.run(world.call(0, retry_after=1e9))
    assert world.bucket.blocked_for() == 3600.0
    await world.clock.run(world.calls(1))
    assert world.sent[-1] == 3600.0


async def test_a_cancelled_wait_uses_no_slot(world: World):
    """Wherever it is in the queue."""

    async def scenario() -> None:
        await world.call(20)
        tasks = [asyncio.create_task(world.call()) for _ in range(5)]
        await let_tasks_start()
        for index in (0, 2, 4):
            tasks[index].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False, True, False, True]

    await world.clock.run(scenario())
    assert world.sent == [0.0, 0.1, 0.2]


async def test_a_failed_call_is_no_longer_in_flight(world: World):
    """It is no longer subtracted from the remaining number."""

    async def fails() -> None:
        async with world.bucket.slot():
            raise ConnectionResetError

    for _ in range(100):
        with pytest.raises(ConnectionResetError):
            await world.clock.run(fails())
    await world.clock.run(world.call(60))
    await world.clock.run(world.calls(40))
    assert world.clock.sleeps == []


class Service:
    """Resource Manager's bucket: 200 calls, refilled by 10 per second. Counts the calls that it refuses."""

    def __init__(self, clock: VirtualClock, remaining: float) -> None:
        self.clock, self.remaining, self.at, self.throttled = clock, remaining, clock.time, 0

    def take(self) -> int | None:
        """The remaining number after one more call, or None if it is refused."""
        self.remaining = min(200.0, self.remaining + (self.clock.time - self.at) * 10.0)
        self.at = self.clock.time
        if self.remaining < 1:
            self.throttled += 1
            return None
        self.remaining -= 1
        return int(self.remaining)


@settings(max_examples=25)
@given(st.integers(1, 300), st.integers(1, 64), st.lists(st.floats(0.01, 0.6), min_size=1, max_size=7))
def test_a_fleet_gets_no_429_and_little_delay(accounts: int, width: int, latencies: list[float]):
    """With a full bucket, for any latency and concurrency."""

    async def scenario() -> tuple[int, float]:
        clock = VirtualClock()
        service = Service(clock, 200.0)
        bucket = TokenBucket(RateLimitPolicy(sleep=clock.sleep, monotonic=clock.monotonic))
        concurrency = asyncio.Semaphore(width)

        async def call(index: int) -> None:
            async with concurrency, bucket.slot():
                await clock.sleep(latencies[index % len(latencies)] / 2)
                remaining = service.take()
                await clock.sleep(latencies[(index * 3) % len(latencies)] / 2)
                replied({WRITES: str(remaining or 0)})
                if remaining is None:
                    bucket.block(1.0)

        async def all_calls() -> None:
            await asyncio.gather(*(call(index) for index in range(accounts)))

        await clock.run(all_calls())
        return service.throttled, clock.time - 1000.0

    throttled, seconds = asyncio.run(scenario())
    assert throttled == 0
    without_limit = max(latencies) * (accounts / width + 1)
    assert seconds <= without_limit + max(0, accounts - 100) / 10 + 1.0


@settings(max_examples=25)
@given(st.integers(0, 60), st.integers(1, 64))
def test_a_bucket_emptied_by_other_clients_causes_few_429(remaining: int, width: int):
    """Only the first calls, made before any reply, are refused; calls are not refused in waves."""

    async def scenario() -> tuple[int, int]:
        clock = VirtualClock()
        service = Service(clock, float(remaining))
        bucket = TokenBucket(RateLimitPolicy(sleep=clock.sleep, monotonic=clock.monotonic))
        concurrency, done = asyncio.Semaphore(width), 0

        async def call() -> None:
            nonlocal done
            while True:
                async with concurrency, bucket.slot():
                    await clock.sleep(0.02)
                    remaining = service.take()
                    await clock.sleep(0.02)
                    replied({WRITES: str(remaining or 0)})
                    if remaining is not None:
                        done += 1
                        return
                    bucket.block(5.0)

        async def all_calls() -> None:
            await asyncio.gather(*(call() for _ in range(120)))

        await clock.run(all_calls())
        return service.throttled, done

    throttled, done = asyncio.run(scenario())
    assert done == 120
    assert throttled <= width
