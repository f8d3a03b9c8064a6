"""Liveness of the daemon: the event loop runs, and sync runs start. A watchdog thread logs where a blocked loop hangs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from traceback import walk_stack
from typing import Any, Final

import structlog

from keysync.config.model import Schedule
from keysync.daemon.fire_times import following

_BEAT_SECONDS: Final = 15.0
_INTERVALS: Final = 3
_FRAMES: Final = 50


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment on both clocks. `wall` is UTC; `monotonic` is in seconds and pauses during a suspend."""

    wall: datetime
    monotonic: float

    @classmethod
    def now(cls) -> Instant:
        """The clocks of this machine."""
        return cls(datetime.now(UTC), time.monotonic())


class Health:
    """The liveness of the daemon. Callers pass the time; this class reads no clock.

    The daemon is alive if `beat` was called within 15 seconds, and a run has started within three intervals of the most
    frequent schedule (for a crontab: before its third fire time after the last start, plus jitter). While a run is within its
    deadline, no other run has to start: Azure is slow.

    Time is the seconds for which the process was awake: the monotonic clock, which pauses during a suspend, with at most 15
    seconds between two beats, so that a freeze of the process does not count either. A changed wall clock has no effect.
    """

    def __init__(self, schedules: Iterable[Schedule], now: Instant) -> None:
        self._beat = now.monotonic
        self._awake_at_beat = 0.0
        self._running: dict[Hashable, tuple[float, float]] = {}  # when each began, and its deadline in seconds
        self.replace(schedules, now)

    def replace(self, schedules: Iterable[Schedule], now: Instant) -> None:
        """Replaces the schedules, as after a reload. The time without a start counts from `now`."""
        self._schedules = tuple(schedules)
        self.note_start(now)

    def beat(self, now: Instant) -> None:
        """Records that the event loop runs. A task of its own calls this every second."""
        self._awake_at_beat, self._beat = self._awake(now), now.monotonic

    def run_started(self, key: Hashable, now: Instant, deadline: float) -> None:
        """Run `key` begins, and must end within `deadline` seconds."""
        self._running[key] = (self._awake(now), deadline)
        self.note_start(now)

    def run_ended(self, key: Hashable) -> None:
        """Run `key` has ended, with or without success."""
        self._running.pop(key, None)

    def note_start(self, now: Instant) -> None:
        """Records that a run could have started: it did, or every account is busy, backing off or of another replica."""
        self._started = self._awake(now)
        self._allowed = min((_silence(schedule, now.wall) for schedule in self._schedules), default=float("inf"))

    def failure(self, now: Instant) -> str | None:
        """Why the daemon is not alive at `now`, in one sentence; None if it is."""
        beaten = now.monotonic - self._beat
        if beaten > _BEAT_SECONDS:
            return f"the loop's own task has not run for {beaten:.0f} s"
        for since, seconds in self._running.values():
            ran = self._awake(now) - since
            if ran > seconds + _BEAT_SECONDS:
                return f"a run has run for {ran:.0f} s; its deadline is {seconds:.0f} s"
        silent = self._awake(now) - self._started
        if self._running or silent <= self._allowed:
            return None
        return f"no run has started for {silent:.0f} s; three intervals are {self._allowed:.0f} s"

    def overdue(self, now: Instant) -> datetime | None:
        """When the daemon will count as not alive unless a run starts or ends before; None for never. UTC."""
        if self._running:
            at = min(since + seconds for since, seconds in self._running.values()) + _BEAT_SECONDS
        else:
            at = self._started + self._allowed
        return None if at == float("inf") else now.wall + timedelta(seconds=at - self._awake(now))

    def _awake(self, now: Instant) -> float:
        return self._awake_at_beat + min(now.monotonic - self._beat, _BEAT_SECONDS)


def _silence(schedule: Schedule, start: datetime) -> float:
    """Seconds after `start` within which the third start after it must happen."""
    third = following(schedule, start, _INTERVALS)
    if third is None:
        return float("inf")
    jitter = min(schedule.jitter, (following(schedule, third) or third + schedule.jitter) - third)
    return (third + jitter - start).total_seconds()


class Watchdog:
    """A thread that logs `event_loop.blocked` once for each stall, with the stack of the watched thread.

    The stack has file, line and function of each frame, innermost first; no source line and no value. When the beats
    continue, it logs `event_loop.recovered`. A freeze of the whole process, including this thread, is not reported.
    """

    def __init__(
        self,
        *,
        stall: float = 10.0,
        tick: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
        log: Any = None,  # noqa: ANN401  # structlog's proxy has no type of its own
    ) -> None:
        self._stall = stall
        self._tick = tick
        self._monotonic = monotonic
        self._log = log or structlog.get_logger("keysync")
        self._watched = threading.get_ident()
        self._last = self._ticked = monotonic()
        self._forgiven = self._last  # when this thread last noticed that it had been frozen too
        self._stuck_since: float | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Watches the calling thread."""
        self._watched = threading.get_ident()
        self._last = self._ticked = self._monotonic()
        self._thread.start()

    def beat(self) -> None:
        """Records that the event loop runs; the loop calls this about every second."""
        self._last = self._monotonic()

    def close(self) -> None:
        """Ends the thread."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def check(self) -> None:
        """Checks the beats once. The thread calls this every `tick` seconds."""
        now, last = self._monotonic(), self._last
        if now - self._ticked > self._tick + self._stall / 2:
            self._forgiven = now
        self._ticked = now
        if self._stuck_since is not None and last > self._stuck_since:
            self._log.warning("event_loop.recovered", seconds=round(last - self._stuck_since, 1))
            self._stuck_since = None
        if self._stuck_since is None and now - max(last, self._forgiven) > self._stall:
            self._stuck_since = last
            self._log.error("event_loop.blocked", seconds=round(now - last, 1), stack=stack_of(self._watched))

    def _run(self) -> None:
        while not self._closing.wait(self._tick):
            self.check()


def stack_of(thread: int) -> list[str]:
    """``file:line:function`` of each frame of the thread with this ident, innermost first; empty if the thread has ended."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # documented despite its name
    frames = islice(walk_stack(frame), _FRAMES) if frame is not None else ()
    return [f"{each.f_code.co_filename}:{line}:{each.f_code.co_name}" for each, line in frames]
