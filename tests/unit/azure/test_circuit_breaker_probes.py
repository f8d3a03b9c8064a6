"""During a probe other calls wait for its result, and share it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

import pytest

from keysync.azure.circuit_breaker import BreakerPermit, BreakerPolicy, Breakers
from keysync.failures import CallFailed, FailureRecord
from tests.support.virtual_clock import seeded
from tests.support.warp import Warp, WarpLoop

VAULT, CREDENTIAL = "vault:main", "credential:default"
DOWN = FailureRecord(kind="connection", summary="no route")
NO_TOKEN = FailureRecord(kind="credential_unavailable", summary="no token")
PROBE_SECONDS = 60.0

Admit: TypeAlias = Callable[[], Coroutine[Any, Any, BreakerPermit]]


def run(work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` on a virtual clock."""
    warp = Warp()
    with warp.installed(), asyncio.Runner(loop_factory=lambda: WarpLoop(warp)) as runner:
        runner.run(work)


def admission_for(*keys: str, breakers: Breakers | None = None) -> Admit:
    """An admission whose breakers open at the first failure, for at most 5 seconds."""
    policy = BreakerPolicy(threshold=1, base=5.0, probe_seconds=PROBE_SECONDS)
    breakers = breakers or Breakers(time.monotonic, seeded(), policy)
    return partial(breakers.admit, *keys)


async def half_open(admit: Admit, record: FailureRecord = DOWN) -> None:
    """Opens the breaker and waits until a probe is allowed."""
    (await admit()).finished(record)
    await asyncio.sleep(5)


async def waiting_calls(admit: Admit, count: int) -> list[asyncio.Task[BreakerPermit]]:
    """Starts calls during a probe."""
    tasks = [asyncio.create_task(admit()) for _ in range(count)]
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in tasks)
    return tasks


def test_waiting_calls_are_admitted_after_a_successful_probe() -> None:
    """So an account's second secret is not refused because its first is the probe."""

    async def work() -> None:
        admit = admission_for(VAULT)
        await half_open(admit)
        probe = await admit()
        waiting = await waiting_calls(admit, 3)
        probe.finished(None)
        assert all(isinstance(permit, BreakerPermit) for permit in await asyncio.gather(*waiting))

    run(work())


def test_waiting_calls_are_refused_after_a_failed_probe() -> None:
    """With the failure of the probe."""

    async def work() -> None:
        admit = admission_for(VAULT)
        await half_open(admit)
        probe = await admit()
        waiting = await waiting_calls(admit, 3)
        probe.finished(DOWN)
        for failure in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(failure, CallFailed)
            assert "no route" in failure.record.summary

    run(work())


def test_one_waiting_call_probes_after_a_cancelled_probe() -> None:
    """The others go on waiting."""

    async def work() -> None:
        admit = admission_for(VAULT)
        await half_open(admit)
        probe = await admit()
        waiting = await waiting_calls(admit, 2)
        probe.cancelled()
        done, pending = await asyncio.wait(waiting, timeout=1)
        assert (len(done), len(pending)) == (1, 1)
        (next_probe,) = done
        (await next_probe).finished(None)
        await asyncio.gather(*pending)

    run(work())


def test_calls_wait_no_longer_than_the_time_of_a_probe() -> None:
    """A hanging probe counts as lost; then another call probes."""

    async def work() -> None:
        admit = admission_for(VAULT)
        await half_open(admit)
        await admit()
        started = time.monotonic()
        await admit()
        assert time.monotonic() - started == pytest.approx(PROBE_SECONDS)

    run(work())


def test_a_call_refused_for_the_credential_releases_the_vault_s_probe() -> None:
    """Otherwise no call to the vault would be admitted until that probe counted as lost."""

    async def work() -> None:
        breakers = Breakers(time.monotonic, seeded(), BreakerPolicy(threshold=1, base=5.0))
        both, vault = admission_for(VAULT, CREDENTIAL, breakers=breakers), admission_for(VAULT, breakers=breakers)
        credential = admission_for(CREDENTIAL, breakers=breakers)
        await half_open(vault)
        (await credential()).finished(NO_TOKEN)
        with pytest.raises(CallFailed):
            await both()
        started = time.monotonic()
        await vault()
        assert time.monotonic() == started

    run(work())
