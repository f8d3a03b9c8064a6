"""Calls are retried within limits, and only if that does no harm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.azure.errors import AzureFailureTranslator
from keysync.azure.retry import Caller, RetryPolicy
from keysync.calls import Operation
from keysync.failures import CallFailed, FailureRecord
from keysync.secret.redact import Redactor
from tests.support.replies import cloud_error, http_error

READ = Operation("batch", "listKeys")
WRITE = Operation("key_vault", "setSecret", repeatable=False)


class Scripted:
    """Raises each of `errors` in turn, then returns "done"."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0)
        return "done"


class Clock:
    """Records waits instead of waiting; its random numbers are the upper limits."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.ranges: list[tuple[float, float]] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def uniform(self, low: float, high: float) -> float:
        self.ranges.append((low, high))
        return high


class World:
    def __init__(self, *, timeout: float = 5, **bounds: float) -> None:
        self.clock = Clock()
        self.seen: list[tuple[str, str]] = []
        self.policy = RetryPolicy(sleep=self.clock.sleep, uniform=self.clock.uniform, **bounds)  # type: ignore[arg-type]
        self.caller = Caller(
            AzureFailureTranslator(Redactor()),
            self.policy,
            timeout=timeout,
            observe=lambda operation, status: self.seen.append((operation.name, status)),
        )

    async def fails(self, operation: Operation, send: Callable[[], object]) -> FailureRecord:
        with pytest.raises(CallFailed) as caught:
            await self.caller.call(operation, "scope", send)  # type: ignore[arg-type]
        return caught.value.record


async def test_a_successful_call_is_made_once():
    """Without a wait."""
    world, send = World(), Scripted()
    assert await world.caller.call(READ, "scope", send) == "done"
    assert (send.calls, world.clock.waits, world.seen) == (1, [], [("listKeys", "200")])


@pytest.mark.parametrize(
    "error", [http_error(429), http_error(500), http_error(503), http_error(408), ConnectionResetError()]
)
async def test_a_transient_failure_is_retried(error: Exception):
    """Until the call succeeds."""
    world, send = World(), Scripted(error, error)
    assert await world.caller.call(READ, "scope", send) == "done"
    assert send.calls == 3
    assert len(world.seen) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
async def test_a_permanent_failure_is_not_retried(status: int):
    """Another attempt would fail in the same way."""
    world, send = World(), Scripted(http_error(status))
    assert (await world.fails(READ, send)).http_status == status
    assert send.calls == 1
    assert world.seen == [("listKeys", str(status))]


async def test_attempts_are_limited():
    """After the last attempt the failure is raised; waits grow up to the cap."""
    world, send = World(attempts=6, base=1.0, cap=8.0), Scripted(*[http_error(503)] * 9)
    assert (await world.fails(READ, send)).http_status == 503
    assert send.calls == 6
    assert world.clock.ranges == [(0.0, 2.0), (0.0, 4.0), (0.0, 8.0), (0.0, 8.0), (0.0, 8.0)]


@given(st.integers(1, 20), st.floats(0.01, 5), st.floats(0.01, 30))
def test_a_wait_is_within_its_limits(attempt: int, base: float, cap: float):
    """It is random, from 0 to the cap, for any attempt."""
    policy = RetryPolicy(attempts=21, base=base, cap=cap)
    wait = policy.delay(attempt, FailureRecord(kind="connection", summary="s"))
    assert wait is not None
    assert 0 <= wait <= cap


async def test_retry_after_is_honoured_with_added_jitter():
    """A wait is never shorter than the service asks for."""
    world, send = World(base=0.4), Scripted(http_error(429, "", {"Retry-After": "7"}))
    assert await world.caller.call(READ, "scope", send) == "done"
    assert world.clock.waits == [7.4]
    assert world.clock.ranges == [(0.0, 0.4)]


@pytest.mark.parametrize("status", [429, 503])
async def test_a_retry_after_beyond_the_cap_fails_the_call(status: int):
    """The summary has the requested wait and the cap."""
    world = World(retry_after_cap=30.0)
    send = Scripted(http_error(status, cloud_error("Busy", "later"), {"Retry-After": "1200"}))
    record = await world.fails(READ, send)
    assert send.calls == 1
    assert world.clock.waits == []
    assert record.kind == "throttled"
    assert "1200 s" in record.summary
    assert "30 s" in record.summary
    assert "Busy" in record.summary


@pytest.mark.parametrize("error", [http_error(500), http_error(503), ConnectionResetError(), TimeoutError()])
async def test_an_ambiguous_write_is_not_retried(error: Exception):
    """It may have taken effect; the record says so."""
    world, send = World(), Scripted(error)
    assert (await world.fails(WRITE, send)).ambiguous
    assert send.calls == 1


@pytest.mark.parametrize("error", [http_error(429), http_error(429, "", {"Retry-After": "1"})])
async def test_a_throttled_write_is_retried(error: Exception):
    """A 429 means that the write had no effect."""
    world, send = World(), Scripted(error)
    assert await world.caller.call(WRITE, "scope", send) == "done"
    assert send.calls == 2


async def test_a_hanging_attempt_ends_at_the_deadline():
    """It counts as a timeout and is retried."""
    world = World(timeout=0.01, attempts=2)

    async def hang() -> str:
        await asyncio.Event().wait()
        return "never"

    assert (await world.fails(READ, hang)).kind == "timeout"
    assert world.seen == [("listKeys", "timeout")] * 2


async def test_a_cancelled_call_is_not_retried():
    """Its cancellation is not a failure."""
    world, started = World(), asyncio.Event()

    async def hang() -> str:
        started.set()
        await asyncio.Event().wait()
        return "never"

    task = asyncio.create_task(world.caller.call(READ, "scope", hang))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.seen == []
