"""The wait for «all of these tasks, or the stop, or a time»."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any


async def wait_for(tasks: Collection[asyncio.Task[Any]], stop: asyncio.Event, seconds: float | None) -> None:
    """Waits until all `tasks` are done, `stop` is set, or `seconds` are over.

    The tasks are left alone, also when the wait itself is cancelled.
    """
    if not tasks:
        return
    stopped = asyncio.create_task(stop.wait())
    everything = asyncio.create_task(_all_of(tasks))
    try:
        await asyncio.wait({everything, stopped}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for helper in (stopped, everything):
            helper.cancel()
        await asyncio.gather(stopped, everything, return_exceptions=True)


async def _all_of(tasks: Collection[asyncio.Task[Any]]) -> None:
    # Unlike gather, its being cancelled leaves the tasks alone.
    await asyncio.wait(tasks)
