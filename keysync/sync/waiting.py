"""A wait with three ends: everything is done, a stop, or a timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any


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
