"""Who is let through to a vault that may be well again: one call asks, the others wait for what it hears."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest

from keysync.azure.circuit_breaker import BreakerAdmission, BreakerPermit, BreakerPolicy, Breakers
from keysync.failures import CallFailed, FailureRecord
from tests.support.virtual_clock import seeded
from tests.support.warp import Warp, WarpLoop

VAULT, CREDENTIAL = "vault:main", "credential:default"
DOWN = FailureRecord(kind="connection", summary="no route")
NO_TOKEN = FailureRecord(kind="credential_unavailable", summary="no token")
PROBE_SECONDS = 60.0


def run(work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` on a clock that nobody waits for."""
    warp = Warp()
    with warp.installed(), asyncio.Runner(loop_factory=lambda: WarpLoop(warp)) as runner:
        runner.run(work)


def admission_for(*keys: str, breakers: Breakers | None = None) -> BreakerAdmission:
    """A guard whose breakers open at the first failure, for 5 seconds at most."""
    policy = BreakerPolicy(threshold=1, base=5.0, probe_seconds=PROBE_SECONDS)
    breakers = breakers or Breakers(time.monotonic, seeded(), policy)
    return BreakerAdmission(breakers, keys, time.monotonic, lambda: datetime.now(UTC))


async def half_open(admission: BreakerAdmission, record: FailureRecord = DOWN) -> None:
    """The breaker has opened, and its time is up."""
    (await admission.admit()).finished(record)
    await asyncio.sleep(5)


async def waiting(admission: BreakerAdmission, count: int) -> list[asyncio.Task[BreakerPermit]]:
    """Calls that ask while a probe is out."""
    tasks = [asyncio.create_task(admission.admit()) for _ in range(count)]
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in tasks)
    return tasks


def test_all_who_waited_go_once_the_probe_got_through() -> None:
    """An account's second secret is not refused because its first is the one that asks whether the vault is well."""

    async def work() -> None:
        admission = admission_for(VAULT)
        await half_open(admission)
        probe = await admission.admit()
        others = await waiting(admission, 3)
        probe.finished(None)
        assert all(isinstance(permit, BreakerPermit) for permit in await asyncio.gather(*others))

    run(work())


def test_all_who_waited_are_refused_once_the_probe_failed() -> None:
    """They learn of the failure that the probe met, and make no call."""

    async def work() -> None:
        admission = admission_for(VAULT)
        await half_open(admission)
        probe = await admission.admit()
        others = await waiting(admission, 3)
        probe.finished(DOWN)
        for failure in await asyncio.gather(*others, return_exceptions=True):
            assert isinstance(failure, CallFailed)
            assert "no route" in failure.record.summary

    run(work())


def test_a_probe_that_was_given_up_leaves_the_place_to_one_of_those_who_waited() -> None:
    """One of them asks, the others go on waiting for it."""

    async def work() -> None:
        admission = admission_for(VAULT)
        await half_open(admission)
        probe = await admission.admit()
        others = await waiting(admission, 2)
        probe.cancelled()
        done, pending = await asyncio.wait(others, timeout=1)
        assert (len(done), len(pending)) == (1, 1)
        (next_probe,) = done
        (await next_probe).finished(None)
        await asyncio.gather(*pending)

    run(work())


def test_nobody_waits_longer_than_a_probe_may_take() -> None:
    """A probe that hangs counts as lost: another goes."""

    async def work() -> None:
        admission = admission_for(VAULT)
        await half_open(admission)
        await admission.admit()
        began = time.monotonic()
        await admission.admit()
        assert time.monotonic() - began == pytest.approx(PROBE_SECONDS)

    run(work())


def test_whoever_is_refused_for_the_credential_gives_the_vault_s_probe_back() -> None:
    """Otherwise nobody could ask the vault until that probe counted as lost."""

    async def work() -> None:
        breakers = Breakers(time.monotonic, seeded(), BreakerPolicy(threshold=1, base=5.0))
        both, vault = admission_for(VAULT, CREDENTIAL, breakers=breakers), admission_for(VAULT, breakers=breakers)
        credential = admission_for(CREDENTIAL, breakers=breakers)
        await half_open(vault)
        (await credential.admit()).finished(NO_TOKEN)
        with pytest.raises(CallFailed):
            await both.admit()
        began = time.monotonic()
        await vault.admit()
        assert time.monotonic() == began

    run(work())
