"""Whether the daemon is alive: its loop turns, and runs start. And a thread that tells where a stuck loop hangs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any, Final, NamedTuple

import structlog

from keysync.daemon.triggers import NEVER, Trigger

_INTERVALS: Final = 3
_FRAMES: Final = 50


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment on both clocks: `monotonic` counts seconds and stands still in a suspend, `wall` is UTC."""

    wall: datetime
    monotonic: float

    @classmethod
    def now(cls) -> Instant:
        """The clocks of this machine."""
        return cls(datetime.now(UTC), time.monotonic())


class Liveness(NamedTuple):
    """Whether the daemon is alive, and if not why, in one sentence."""

    live: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Running:
    since: float
    seconds: float


class Health:
    """The liveness of the daemon, from what it is told; it reads no clock.

    Alive means: the loop's own task has beaten within `beat_seconds`, and a run has started within three intervals of
    the timetable that is soonest (with a crontab: before its third time after the last start, plus the jitter). A run
    that is running within its deadline is a good reason for none to start: then it is Azure that is slow.

    Time is counted on the monotonic clock, less what the process spent frozen (the beat stood still); after that, and
    after a suspend or a set clock (the two clocks differ), silence is forgiven for one interval.
    """

    def __init__(self, triggers: Iterable[Trigger], now: Instant, *, beat_seconds: float = 15.0) -> None:
        self._beat_seconds = beat_seconds
        self._beat = now
        self._started = now.monotonic
        self._running: dict[Hashable, _Running] = {}
        self._lenient_until = now.monotonic
        self._timetables: tuple[Trigger, ...] = ()
        self._allowed = float("inf")
        self.replace(triggers, now)

    def replace(self, triggers: Iterable[Trigger], now: Instant) -> None:
        """Takes `triggers` in place of those before, as after a reload; silence counts from `now`."""
        self._timetables = tuple(triggers)
        self._note_start(now)

    def beat(self, now: Instant) -> None:
        """The loop turns; to be called every second by a task of its own."""
        if self._was_away(now):
            self._forgive(now)
        self._beat = now

    def run_started(self, key: Hashable, now: Instant, deadline: float) -> None:
        """Pass `key` begins, and must be over within `deadline` seconds."""
        self._running[key] = _Running(now.monotonic, deadline)
        self._note_start(now)

    def run_ended(self, key: Hashable) -> None:
        """Pass `key` is over, however it ended."""
        self._running.pop(key, None)

    def verdict(self, now: Instant) -> Liveness:
        """Whether the daemon is alive at `now`."""
        beaten = now.monotonic - self._beat.monotonic
        if beaten > self._beat_seconds:
            return Liveness(False, f"the loop's own task has not run for {beaten:.0f} s")
        if self._was_away(now):
            return Liveness(True)
        return self._check_runs(now.monotonic)

    def overdue(self, now: Instant) -> datetime | None:
        """From when on `verdict` will say that runs have stopped, unless one starts or ends until then; None for never."""
        if self._running:
            at = min(running.since + running.seconds for running in self._running.values()) + self._beat_seconds
        else:
            at = max(self._started + self._allowed, self._lenient_until)
        return None if at == float("inf") else now.wall + timedelta(seconds=at - now.monotonic)

    def _check_runs(self, now: float) -> Liveness:
        for running in self._running.values():
            ran = now - running.since
            if ran > running.seconds + self._beat_seconds:
                return Liveness(False, f"a run has run for {ran:.0f} s; its deadline is {running.seconds:.0f} s")
        silent = now - self._started
        if self._running or silent <= self._allowed or now <= self._lenient_until:
            return Liveness(True)
        return Liveness(False, f"no run has started for {silent:.0f} s; three intervals are {self._allowed:.0f} s")

    def _forgive(self, now: Instant) -> None:
        stood_still = now.monotonic - self._beat.monotonic
        if stood_still > self._beat_seconds:
            self._started += stood_still
            for key, running in self._running.items():
                self._running[key] = replace(running, since=running.since + stood_still)
        if self._allowed != float("inf"):
            self._lenient_until = now.monotonic + self._allowed / _INTERVALS

    def _was_away(self, now: Instant) -> bool:
        monotonic = now.monotonic - self._beat.monotonic
        wall = (now.wall - self._beat.wall).total_seconds()
        return max(monotonic, abs(wall - monotonic)) > self._beat_seconds

    def _note_start(self, now: Instant) -> None:
        self._started = now.monotonic
        self._allowed = min((_silence(trigger, now.wall) for trigger in self._timetables), default=float("inf"))


def _silence(trigger: Trigger, start: datetime) -> float:
    """Seconds after `start` by which the third start after it must have come."""
    third = trigger.following(start, _INTERVALS)
    if third == NEVER:
        return float("inf")
    if trigger.every is not None:
        third += min(trigger.jitter, trigger.every)
        return (third - start).total_seconds()
    return (third + min(trigger.jitter, trigger.following(third) - third) - start).total_seconds()


class Watchdog:
    """A thread that logs `event_loop.blocked`, once a stall, with the place in the code where the watched thread hangs.

    The stack is file, line and function of each frame, innermost first, and nothing else: no source line and no value.
    `event_loop.recovered` follows when the beats go on. A freeze of the whole process, in which this thread stood still as
    well, is not held against the loop.
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
        self._forgiven = self._last  # when this thread last found that it had stood still too
        self._stuck_since: float | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Watches the calling thread from now on."""
        self._watched = threading.get_ident()
        self._last = self._ticked = self._monotonic()
        self._thread.start()

    def beat(self) -> None:
        """The loop turns; to be called from it every second or so."""
        self._last = self._monotonic()

    def close(self) -> None:
        """Ends the thread."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def check(self) -> None:
        """One look at the beats; the thread's own step."""
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
    """``file:line:function`` of each frame of the thread with this ident, innermost first; empty where it is gone."""
    frame: FrameType | None = sys._current_frames().get(thread)  # noqa: SLF001  # documented, in spite of its name
    found: list[str] = []
    while frame is not None and len(found) < _FRAMES:
        found.append(f"{frame.f_code.co_filename}:{frame.f_lineno}:{frame.f_code.co_name}")
        frame = frame.f_back
    return found
