"""An event loop whose clock jumps to the next timer: hours of sleep and deadlines pass in milliseconds, in their order."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Jumping(selectors.DefaultSelector):
    """Waits for nothing: it moves the clock of its loop instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


class FastLoop(asyncio.SelectorEventLoop):
    """The loop; `time` starts at 0 and has no relation to real time."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_fast(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, run on such a loop. It must not wait for other threads or real sockets."""
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        return runner.run(work)
