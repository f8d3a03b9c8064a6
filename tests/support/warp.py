"""A clock that moves only while all code waits: a day of a daemon in minutes, over real sockets and threads.

`Warp` is the clock. Inside ``with warp.installed():`` every clock of the process shows its time: `time.time` and
`datetime.now` through time-machine, and `time.monotonic`, which time-machine does not change because an ordinary event
loop would stop.

`WarpLoop` is the event loop for it. While there is I/O to handle or a working thread, the clock does not move; then it
jumps to the next timer. So code takes no time, waiting takes exactly the requested time, and a timer never fires before
a reply that is already on its way.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from math import ceil
from selectors import SelectorKey
from typing import Any, Final, Self

import time_machine

_NANO: Final = 1_000_000_000
_THREAD_SECONDS: Final = 0.01
# Data between two sockets of this process can be read as soon as the call returns (Linux delivers loopback traffic
# within the call), so this is for the rare packet that is delayed in a soft interrupt.
_EXTRA_POLLS: Final = 5
_REAL_MONOTONIC: Final = time.monotonic_ns

EPOCH: Final = datetime(2026, 11, 24, tzinfo=UTC)
"""The default start time of the clock."""


class Warp:
    """A wall clock and a monotonic clock that move together, only forwards, and only on request."""

    def __init__(self, start: datetime = EPOCH) -> None:
        self._start = start
        self._passed_ns = 0
        self._traveller: time_machine.Traveller | None = None
        self.jumps = 0

    def monotonic(self) -> float:
        """Seconds since the start."""
        return self._passed_ns / _NANO

    def wall(self) -> float:
        """Seconds since 1970."""
        return self._start.timestamp() + self.monotonic()

    def advance(self, seconds: float) -> None:
        """Moves time forwards. Raises ValueError for a step back."""
        if seconds < 0:
            raise ValueError(f"time does not go back (by {-seconds} s)")
        # Rounded up, so that a caller that waits for this time finds that it has come.
        step = ceil(seconds * _NANO)
        self._passed_ns += step
        self.jumps += 1
        if self._traveller is not None:
            self._traveller.shift(step / _NANO)

    @contextmanager
    def installed(self) -> Iterator[Self]:
        """All clocks of the process show this time while the block runs."""
        with time_machine.travel(self.wall(), tick=False) as traveller, _replaced_monotonic(self.monotonic):
            self._traveller = traveller
            try:
                yield self
            finally:
                self._traveller = None


class _Method(ctypes.Structure):
    """CPython's PyMethodDef (Include/methodobject.h)."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


class _Builtin(ctypes.Structure):
    """The beginning of CPython's PyCFunctionObject (Include/cpython/methodobject.h)."""

    _fields_ = (("head", ctypes.c_byte * object.__basicsize__), ("method", ctypes.POINTER(_Method)))


_NO_ARGUMENTS = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p)


@contextmanager
def _replaced_monotonic(clock: Callable[[], float]) -> Iterator[None]:
    """Replaces the implementation of `time.monotonic`, since most modules took a reference to it when they were
    imported.

    time-machine does the same for `time.time`. Locks and selectors use the kernel's clock and are not affected.
    """
    replacement = _NO_ARGUMENTS(lambda _module, _nothing: clock())
    method = _Builtin.from_address(id(time.monotonic)).method.contents
    original = method.function
    method.function = ctypes.cast(replacement, ctypes.c_void_p).value
    try:
        yield
    finally:
        method.function = original


class WarpLoop(asyncio.SelectorEventLoop):
    """An event loop on a `Warp`.

    It resolves names under `.localhost` itself, without a thread; names in `unknown_hosts` do not exist. After
    `real_seconds` of real time without a jump the loop raises TimeoutError, because some code must be spinning.
    """

    def __init__(self, warp: Warp, *, real_seconds: float = 30.0) -> None:
        self.warp = warp
        self.unknown_hosts: set[str] = set()
        self._quiet = _JumpingSelector(selectors.DefaultSelector(), warp, real_seconds)
        super().__init__(self._quiet)

    def time(self) -> float:
        """The clock's time."""
        return self.warp.monotonic()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """As in the base class; the clock does not move until the work is done."""
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self._quiet.threads_at_work += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _future: asyncio.Future[Any]) -> None:
        self._quiet.threads_at_work -= 1

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002  # the base class's own name
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Addresses of `host`; for names of other machines from the system's resolver."""
        if host in self.unknown_hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if isinstance(host, str) and (host == "localhost" or host.endswith(".localhost")):
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", int(port or 0)))]
        return await super().getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)


class _JumpingSelector(selectors.BaseSelector):
    """Waits for I/O like the wrapped selector, but moves the clock instead of sleeping for a timer."""

    def __init__(self, real: selectors.BaseSelector, warp: Warp, real_seconds: float) -> None:
        self._real = real
        self._warp = warp
        self._patience_ns = int(real_seconds * _NANO)
        self._jumped_at = _REAL_MONOTONIC()
        self._stirred = True  # data came since the last jump, so more may be on its way
        self.threads_at_work = 0

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """The ready events. If there are none and no thread works, the clock moves by `timeout` seconds."""
        events = self._real.select(0)
        if not events and (timeout is None or timeout > 0):
            events = self._wait(timeout)
        self._stirred = self._stirred or bool(events)
        if _REAL_MONOTONIC() - self._jumped_at > self._patience_ns:
            self._jumped_at = _REAL_MONOTONIC()
            raise TimeoutError("the loop has been busy for too long without any time passing")
        return events

    def _wait(self, timeout: float | None) -> list[tuple[SelectorKey, int]]:
        if timeout is None or self.threads_at_work:
            return self._real.select(_THREAD_SECONDS)
        for _ in range(_EXTRA_POLLS if self._stirred else 0):
            os.sched_yield()
            events = self._real.select(0)
            if events:
                return events
        self._stirred = False
        self._jumped_at = _REAL_MONOTONIC()
        self._warp.advance(timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """As the wrapped selector."""
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> SelectorKey:
        """As the wrapped selector."""
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """As the wrapped selector."""
        return self._real.modify(fileobj, events, data)

    def close(self) -> None:
        """As the wrapped selector."""
        self._real.close()

    def get_map(self) -> Mapping[Any, SelectorKey]:
        """As the wrapped selector."""
        return self._real.get_map()
