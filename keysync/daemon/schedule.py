"""A repeated job under APScheduler that ends without being torn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger


async def run_every(seconds: float, job: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """Runs `job` now and every `seconds`, never two at a time, until `stop` is set; then lets the one under way end.

    APScheduler's `shutdown` cancels running jobs even when told to wait, so the job is drained before it is called, and
    its misfire grace of one second would leave a late run out silently, so it is lifted.
    """
    idle = asyncio.Lock()

    async def guarded() -> None:
        async with idle:
            if not stop.is_set():
                await job()

    scheduler = AsyncIOScheduler(timezone=UTC)
    scheduler.add_job(
        guarded,
        IntervalTrigger(seconds=seconds, timezone=UTC),
        next_run_time=datetime.now(UTC),
        max_instances=1,
        coalesce=True,
        misfire_grace_time=None,
    )
    scheduler.start()
    try:
        await stop.wait()
        async with idle:
            pass
    finally:
        scheduler.shutdown(wait=False)
