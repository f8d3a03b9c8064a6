"""A wait with three ends: everything is done, a stop, or a timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def wait_for(futures: Collection[asyncio.Future[Any]], stop: asyncio.Event, seconds: float | None) -> None:
    """Waits until all `futures` are done, `stop` is set, or `seconds` have passed. It never cancels the futures."""
    if not futures:
        return
    stopped = asyncio.create_task(stop.wait())
    done = asyncio.create_task(asyncio.wait(futures))  # unlike gather, it cancels no future when it is cancelled
    try:
        await asyncio.wait({done, stopped}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        done.cancel()
        await asyncio.gather(stopped, done, return_exceptions=True)


async def until_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """The result of `work`, or None after a `stop`, which cancels it."""
    task = asyncio.create_task(work)
    try:
        await wait_for([task], stop, None)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
