"""Signal handlers of the commands. They set an event or call a callback on the event loop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
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
def interruptible(*more: signal.Signals) -> Generator[Interruption]:
    """Handles SIGINT, SIGTERM and `more` until the block ends. Needs a running loop."""
    loop, interruption = asyncio.get_running_loop(), Interruption()
    handled = (signal.SIGINT, signal.SIGTERM, *more)
    for signum in handled:
        loop.add_signal_handler(signum, interruption, signum)
    try:
        yield interruption
    finally:
        for signum in handled:
            loop.remove_signal_handler(signum)


def _no_op() -> None:
    """No-op callback."""


@dataclass(slots=True)
class DaemonSignals:
    """Callbacks for SIGUSR1 and SIGHUP while they are `installed`."""

    usr1: Callable[[], None] = _no_op
    hup: Callable[[], None] = _no_op

    @contextmanager
    def installed(self) -> Generator[None]:
        """Handles both signals until the block ends. Needs a running loop."""
        loop = asyncio.get_running_loop()
        # Lambdas, since the callbacks change.
        loop.add_signal_handler(signal.SIGUSR1, lambda: self.usr1())  # noqa: PLW0108  # as above
        loop.add_signal_handler(signal.SIGHUP, lambda: self.hup())  # noqa: PLW0108  # as above
        try:
            yield
        finally:
            for signum in (signal.SIGUSR1, signal.SIGHUP):
                with suppress(RuntimeError):
                    loop.remove_signal_handler(signum)

    @contextmanager
    def calling(self, usr1: Callable[[], None], hup: Callable[[], None]) -> Generator[None]:
        """Uses these callbacks until the block ends."""
        before = self.usr1, self.hup
        self.usr1, self.hup = usr1, hup
        try:
            yield
        finally:
            self.usr1, self.hup = before
