"""The scheduler: APScheduler fires the schedules, and schedules that fire together start one run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from random import uniform
from typing import Any, Final

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger

from keysync.config.model import Schedule
from keysync.daemon.fire_times import crontab_times

_LATE: Final = timedelta(minutes=1)  # a smaller delay is normal for a busy loop
# A smaller step back of the clock is a correction (NTP). After a larger one, computed fire times are not trusted.
_CORRECTION: Final = timedelta(minutes=1)


class CrontabTrigger(BaseTrigger):
    """A crontab as APScheduler's trigger, with a random delay of at most `jitter` that never passes the next fire time.

    APScheduler's own CronTrigger counts days of the week from Monday and requires both the day and the weekday to match.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The first fire time after `previous_fire_time`, else after `now`, in UTC; None if there is none within 50 years."""
        schedule = self._schedule
        times = crontab_times(schedule.cron or "", schedule.timezone, previous_fire_time or now)
        fire_time = next(times, None)
        if fire_time is None or not schedule.jitter:
            return fire_time
        room = min(schedule.jitter, next(times, fire_time + schedule.jitter) - fire_time)
        return fire_time + uniform(0, 1) * room  # noqa: S311  # nosec B311  # when a run starts is no secret


def trigger_of(schedule: Schedule) -> BaseTrigger:
    """APScheduler's trigger for a configured schedule."""
    if schedule.every is None:
        return CrontabTrigger(schedule)
    jitter = min(schedule.jitter, schedule.every).total_seconds()
    return IntervalTrigger(seconds=schedule.every.total_seconds(), jitter=jitter or None, timezone=UTC)


def utc_now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(UTC)


class Scheduler:
    """Calls `due` with the schedules that fire together. It starts no runs itself.

    A schedule fires once when it is new, and then by itself. Missed fire times are coalesced into one. An exception of
    `due` is logged as `schedule.failed`.

    APScheduler's `AsyncIOScheduler` computes a delay from the wall clock and then sleeps on the loop's monotonic timer
    (3.11, `schedulers/asyncio.py`, `_start_timer`). After a suspend, or after the clock was set back, that delay is too long.
    So every `check_seconds` it computes the delay again, and after a step back the fire times too.
    """

    def __init__(self, due: Callable[[set[Schedule]], None], *, check_seconds: float = 30.0) -> None:
        self._due = due
        self._check_seconds = check_seconds
        self._log: Any = structlog.get_logger("keysync")
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._schedules: set[Schedule] = set()
        self._fired: set[Schedule] = set()
        self._expected: Mapping[Schedule, datetime] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._checked = (utc_now(), 0.0)  # the time of the last check on both clocks

    def start(self, schedules: set[Schedule]) -> None:
        """Starts the scheduler. Each schedule fires once immediately. Needs a running loop."""
        self._scheduler.start()
        self._checked = (utc_now(), asyncio.get_running_loop().time())
        self._timer = asyncio.get_running_loop().call_later(self._check_seconds, self.check)
        self.replace(schedules)

    def close(self) -> None:
        """Makes no further call of `due`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._fired.clear()
            self._scheduler.shutdown(wait=False)

    def trigger_now(self) -> None:
        """Fires all schedules now. Their fire times do not change."""
        if self._timer is not None:
            self._fire(self._schedules)

    def replace(self, schedules: set[Schedule]) -> None:
        """Replaces the schedules. One that stays keeps its fire times; a new one fires at once."""
        if self._timer is None:
            return
        before, self._schedules, now = self._schedules, schedules, utc_now()
        for job in self._scheduler.get_jobs():
            if job.args[0] not in schedules:
                job.remove()
        for schedule in schedules - before:
            self._scheduler.add_job(
                self._on_fire,
                trigger_of(schedule),
                args=(schedule,),
                next_run_time=now,
                max_instances=1,
                coalesce=True,
                misfire_grace_time=None,  # the default of one second would skip a late start
            )

    @property
    def next_starts(self) -> dict[Schedule, datetime]:
        """The next start of each schedule that fires again."""
        return {job.args[0]: job.next_run_time for job in self._scheduler.get_jobs()}

    def check(self) -> None:
        """Has APScheduler compare its fire times with the wall clock. Called every `check_seconds`."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._check_seconds, self.check)
        now, (wall, monotonic) = utc_now(), self._checked
        back = wall + timedelta(seconds=loop.time() - monotonic) - now
        enough = min((_CORRECTION, *(schedule.every for schedule in self._schedules if schedule.every)))
        if not timedelta(0) < back < enough:
            self._checked = (now, loop.time())  # else the time of the last check stays: small steps back add up
        for job in self._scheduler.get_jobs():
            schedule: Schedule = job.args[0]
            if back >= min(_CORRECTION, schedule.every or _CORRECTION):
                # The time since the last start is unknown. An extra start costs a few calls; a late one is an outage.
                next_run_time = now if schedule.every else job.trigger.get_next_fire_time(None, now)
                job.modify(next_run_time=next_run_time)
        self._scheduler.wakeup()

    async def _on_fire(self, schedule: Schedule) -> None:
        # A coroutine: APScheduler runs plain functions in threads.
        self._fire({schedule})

    def _fire(self, schedules: set[Schedule]) -> None:
        # In the next iteration of the loop, so that schedules that fire together share a run.
        if not self._fired:
            asyncio.get_running_loop().call_soon(self._notify)
        self._fired |= schedules

    def _notify(self) -> None:
        fired, self._fired = self._fired & self._schedules, set()
        late = max(
            (utc_now() - self._expected[schedule] for schedule in fired & self._expected.keys()), default=timedelta(0)
        )
        if late >= _LATE:
            self._log.warning("schedule.late", seconds=round(late.total_seconds()))
        self._expected = self.next_starts
        if not fired:
            return
        try:
            self._due(fired)
        except Exception as error:  # noqa: BLE001  # an error must not prevent the next start
            self._log.error("schedule.failed", exception=type(error).__name__)
