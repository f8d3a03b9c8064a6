"""A wait with three ends: all tasks are done, a stop, or a timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any


async def wait_for(tasks: Collection[asyncio.Task[Any]], stop: asyncio.Event, seconds: float | None) -> None:
    """Waits until all `tasks` are done, `stop` is set, or `seconds` have passed. It never cancels the tasks."""
    if not tasks:
        return
    stopped = asyncio.create_task(stop.wait())
    done = asyncio.create_task(
        asyncio.wait(tasks)
    )  # unlike gather, wait does not cancel the tasks when it is cancelled
    try:
        await asyncio.wait({done, stopped}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        done.cancel()
        await asyncio.gather(stopped, done, return_exceptions=True)
