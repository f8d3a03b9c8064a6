"""Runs a blocking library call in a daemon thread, so that it blocks neither the event loop nor the end of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[[], T], *, seconds: float, name: str) -> T:
    """Returns or raises what `call` does. Raises TimeoutError after `seconds`; then the result of `call` is ignored.

    The thread is a daemon thread. The event loop's executor would wait for its threads when the loop closes.
    """
    future = Future[T]()
    future.set_running_or_notify_cancel()  # so that a timeout cannot cancel it, and the thread can always set the result

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001  # passed on to the caller
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    async with asyncio.timeout(seconds):
        return await asyncio.wrap_future(future)
