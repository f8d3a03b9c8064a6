"""One call for all vaults of an account."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from keysync.failures import CallFailed, FailureRecord
from keysync.sources.interface import SingleFlightSource
from tests.support.memory import MemorySource
from tests.support.runs import key


def source() -> MemorySource:
    return MemorySource(key("one"), key("two"))


async def test_all_callers_get_the_result_of_one_call():
    """At the same time or later."""
    inner = source()
    once = SingleFlightSource(inner, callers=3)
    first, second = await asyncio.gather(once.get_keys(), once.get_keys())
    assert first is second
    assert await once.get_keys() is first
    assert inner.calls == 1


async def test_all_callers_get_the_same_failure():
    """The call is not repeated in the run."""
    inner = source()
    inner.failure = CallFailed(FailureRecord(kind="timeout", summary="no answer"))
    once = SingleFlightSource(inner, callers=2)
    for _ in range(2):
        with pytest.raises(CallFailed):
            await once.get_keys()
    assert inner.calls == 1


@pytest.mark.parametrize(("callers", "kept"), [(1, False), (2, True), (3, True)])
async def test_the_result_is_dropped_after_the_last_caller(callers: int, kept: bool):
    """Key values stay in memory no longer than needed, though the run goes on."""
    once = SingleFlightSource(source(), callers)
    value = weakref.ref((await once.get_keys()).values["primary"])
    await asyncio.sleep(0)  # the loop itself has had the answer in its hands
    gc.collect()
    assert (value() is not None) == kept
    await once.get_keys()
    await asyncio.sleep(0)
    gc.collect()
    assert (value() is not None) == (callers > 2)


async def test_a_cancelled_caller_does_not_cancel_the_call_of_others():
    """The last one cancels it."""
    inner = source()
    inner.hang()
    once = SingleFlightSource(inner, callers=2)
    first, second = asyncio.create_task(once.get_keys()), asyncio.create_task(once.get_keys())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    assert not second.done()
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
