"""The scheduler: fires the triggers of accounts, driven by APScheduler."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final, Generic, TypeVar

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

from keysync.config.settings import Schedule
from keysync.daemon.triggers import NEVER, FireTimes, Trigger

T = TypeVar("T")

_LATE: Final = timedelta(minutes=1)  # a smaller delay is normal for a busy loop


@dataclass(frozen=True, slots=True)
class Group(Generic[T]):
    """Members with the same trigger. They start together."""

    trigger: Trigger
    members: tuple[T, ...]


def group_by_schedule(members: Iterable[T], schedule_of: Callable[[T], Schedule]) -> tuple[Group[T], ...]:
    """Groups `members` by trigger, in order of first appearance."""
    grouped: dict[Trigger, list[T]] = {}
    for member in members:
        grouped.setdefault(Trigger.of(schedule_of(member)), []).append(member)
    return tuple(Group(trigger, tuple(group)) for trigger, group in grouped.items())


def utc_now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(UTC)


class Scheduler(Generic[T]):
    """Calls `due` with the groups whose triggers fire. It starts no runs itself.

    Groups that become due during a call of `due` are coalesced into the next call. An exception of `due` is logged as
    `schedule.failed`.

    APScheduler's `AsyncIOScheduler` computes a delay from the wall clock and then sleeps on the loop's monotonic timer
    (3.11, `schedulers/asyncio.py`, `_start_timer`). After a suspend, or after the clock was set back, that delay is too long.
    So APScheduler only gets the next start, and the delay is computed from the wall clock again after each `check_every`.
    """

    def __init__(
        self,
        groups: Iterable[Group[T]],
        due: Callable[[tuple[Group[T], ...]], Awaitable[None] | None],
        *,
        now: Callable[[], datetime] = utc_now,
        random: Random | None = None,
        check_every: timedelta = timedelta(seconds=30),
        log: Any = None,  # noqa: ANN401  # structlog's proxy has no type of its own
    ) -> None:
        self._due = due
        self._now = now
        self._check_seconds = check_every.total_seconds()
        self._log = log or structlog.get_logger("keysync")
        self._fire_times = FireTimes(random or Random())  # noqa: S311  # nosec B311  # jitter is no secret
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._groups: dict[Trigger, Group[T]] = {}
        self._waiting: dict[Trigger, None] = {}
        self._notify_task: asyncio.Task[None] | None = None
        self._check_task: asyncio.Task[None] | None = None
        self._set(groups)

    def start(self) -> None:
        """Starts the scheduler. Each group fires once immediately. Needs a running loop."""
        self._scheduler.start()
        self._check_task = asyncio.create_task(self._keep_checking(), name="scheduler")

    async def close(self) -> None:
        """Stops the scheduler. Waits for an active call of `due`, and makes no further call."""
        looking, self._check_task = self._check_task, None
        if looking is None:
            return
        self._waiting.clear()
        looking.cancel()
        # `shutdown` cancels running jobs even with wait=True (`executors/asyncio.py`); this job never suspends.
        self._scheduler.shutdown(wait=False)
        await asyncio.wait({looking} if self._notify_task is None else {looking, self._notify_task})

    def trigger_now(self) -> None:
        """Fires all groups now. Their schedules do not change."""
        if self._check_task is not None:
            self._notify(self._groups)

    def replace(self, groups: Iterable[Group[T]]) -> None:
        """Replaces the groups. A trigger that stays keeps its fire times; a new trigger fires at once."""
        self._set(groups)
        if self._check_task is not None:
            self.check_due()

    @property
    def next_starts(self) -> dict[Trigger, datetime]:
        """The next start of each trigger; `triggers.NEVER` if there is none."""
        return self._fire_times.next_starts()

    def check_due(self) -> None:
        """Fires the triggers that are due, and schedules the next check. Called by the scheduler itself."""
        now = self._now()
        due = self._fire_times.take(now)
        for start in due:
            if start.late >= _LATE:
                self._log.warning("schedule.late", seconds=round(start.late.total_seconds()))
        self._notify(start.trigger for start in due)
        self._set_alarm(now)

    def _set(self, groups: Iterable[Group[T]]) -> None:
        self._groups = {group.trigger: group for group in groups}
        self._waiting = {trigger: None for trigger in self._waiting if trigger in self._groups}
        self._fire_times.replace(self._groups, self._now())

    async def _keep_checking(self) -> None:
        while True:
            try:
                self.check_due()
            except Exception as error:  # noqa: BLE001  # a stopped scheduler would be an outage
                self._log.error("schedule.failed", exception=type(error).__name__)
            await asyncio.sleep(self._check_seconds)

    def _set_alarm(self, now: datetime) -> None:
        pause = min(
            max((min(self._fire_times.next_starts().values(), default=NEVER) - now).total_seconds(), 0.0),
            self._check_seconds,
        )
        self._scheduler.add_job(
            self._alarm,
            # By APScheduler's own clock, not by `now`.
            DateTrigger(run_date=datetime.now(UTC) + timedelta(seconds=pause), timezone=UTC),
            id="next start",
            replace_existing=True,
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,  # the default of one second would skip a late start
        )

    async def _alarm(self) -> None:
        # Not within the job: the job must end before the next one is added, or `max_instances` would skip that one.
        asyncio.get_running_loop().call_soon(self._on_alarm)

    def _on_alarm(self) -> None:
        if self._check_task is not None:
            self.check_due()

    def _notify(self, triggers: Iterable[Trigger]) -> None:
        self._waiting |= dict.fromkeys(triggers)
        if self._waiting and (self._notify_task is None or self._notify_task.done()):
            self._notify_task = asyncio.create_task(self._notify_all(), name="scheduler: due")

    async def _notify_all(self) -> None:
        while self._waiting:
            groups = tuple(self._groups[trigger] for trigger in self._waiting)
            self._waiting = {}
            try:
                result = self._due(groups)
                if inspect.isawaitable(result):
                    await result
            except Exception as error:  # noqa: BLE001  # an error must not prevent the next start
                self._log.error("schedule.failed", exception=type(error).__name__)
