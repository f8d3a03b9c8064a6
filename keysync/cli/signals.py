"""Signal handlers of the commands. They set an event, or call a function on the event loop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Interruption:
    """`stop` is set by the first signal, and `signum` is its number."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    signum: int | None = None

    def __call__(self, signum: int) -> None:
        self.signum = self.signum or signum
        self.stop.set()

    @property
    def exit_code(self) -> int | None:
        """130 or 143, as a shell reports the signal; None without a signal."""
        return None if self.signum is None else 128 + self.signum


@contextmanager
def handled(call: Callable[[int], None], *signals: signal.Signals) -> Generator[None]:
    """Calls `call` on the event loop with the number of each of `signals`, until the block ends. Needs a running loop."""
    loop = asyncio.get_running_loop()
    for signum in signals:
        loop.add_signal_handler(signum, call, signum)
    try:
        yield
    finally:
        for signum in signals:
            loop.remove_signal_handler(signum)


@contextmanager
def interruptible(*more: signal.Signals) -> Generator[Interruption]:
    """Handles SIGINT, SIGTERM and `more` until the block ends. Needs a running loop."""
    interruption = Interruption()
    with handled(interruption, signal.SIGINT, signal.SIGTERM, *more):
        yield interruption
