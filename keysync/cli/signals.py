"""Signals, taken at the edge: they set an event, and the exit code says which one came."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Interruption:
    """`stop` is set by SIGINT, SIGTERM and what else was asked for; `signum` is the first that came."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    signum: int | None = None

    def __call__(self, signum: int) -> None:
        self.signum = self.signum or signum
        self.stop.set()

    @property
    def exit_code(self) -> int | None:
        """130 or 143 by the shell's rule, None if nothing came."""
        return None if self.signum is None else 128 + self.signum


@contextmanager
def interruptible(*more: signal.Signals) -> Iterator[Interruption]:
    """Takes SIGINT, SIGTERM and `more` for as long as the block runs; needs a running loop."""
    loop, interruption = asyncio.get_running_loop(), Interruption()
    taken = (signal.SIGINT, signal.SIGTERM, *more)
    for signum in taken:
        loop.add_signal_handler(signum, interruption, signum)
    try:
        yield interruption
    finally:
        for signum in taken:
            loop.remove_signal_handler(signum)
