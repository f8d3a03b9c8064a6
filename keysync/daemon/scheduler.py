"""When runs start: timetables of accounts, driven by APScheduler."""

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

_LATE: Final = timedelta(minutes=1)  # below it a start is as punctual as a busy loop can be


@dataclass(frozen=True, slots=True)
class Group(Generic[T]):
    """What shares one timetable, so that it starts together."""

    trigger: Trigger
    members: tuple[T, ...]


def group_by_schedule(members: Iterable[T], schedule_of: Callable[[T], Schedule]) -> tuple[Group[T], ...]:
    """`members` by timetable, in the order in which they come."""
    grouped: dict[Trigger, list[T]] = {}
    for member in members:
        grouped.setdefault(Trigger.of(schedule_of(member)), []).append(member)
    return tuple(Group(trigger, tuple(those)) for trigger, those in grouped.items())


def utc_now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(UTC)


class Scheduler(Generic[T]):
    """Calls `due` with the groups whose start has come; it tells, and runs no pass itself.

    While one call of `due` is not over, what falls due is gathered and told at once by the next call: nothing is
    dropped, nothing piles up. An exception of `due` is logged as `schedule.failed`.

    APScheduler's `AsyncIOScheduler` sleeps on the loop's monotonic timer for as long as the wall clock said when it
    fell asleep (3.11, `schedulers/asyncio.py`, `_start_timer`): after a suspend, or a clock set back, that is too long.
    So it is given the next start only, and every `look` that is calculated anew from the wall clock.
    """

    def __init__(
        self,
        groups: Iterable[Group[T]],
        due: Callable[[tuple[Group[T], ...]], Awaitable[None] | None],
        *,
        now: Callable[[], datetime] = utc_now,
        random: Random | None = None,
        look: timedelta = timedelta(seconds=30),
        log: Any = None,  # noqa: ANN401  # structlog's proxy has no type of its own
    ) -> None:
        self._due = due
        self._now = now
        self._look_seconds = look.total_seconds()
        self._log = log or structlog.get_logger("keysync")
        self._agenda = FireTimes(random or Random())  # noqa: S311  # nosec B311  # jitter is no secret
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._groups: dict[Trigger, Group[T]] = {}
        self._waiting: dict[Trigger, None] = {}
        self._telling: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._set(groups)

    def start(self) -> None:
        """Begins; every group's first start is at once. Needs a running loop."""
        self._scheduler.start()
        self._looking = asyncio.create_task(self._keep_looking(), name="clockwork")

    async def close(self) -> None:
        """Ends for good; waits for a call of `due` under way, cancels none, and tells nothing more."""
        looking, self._looking = self._looking, None
        if looking is None:
            return
        self._waiting.clear()
        looking.cancel()
        # `shutdown` cancels running jobs even when told to wait (`executors/asyncio.py`); this one never suspends.
        self._scheduler.shutdown(wait=False)
        await asyncio.wait({looking} if self._telling is None else {looking, self._telling})

    def trigger_now(self) -> None:
        """Tells of all groups at once; the timetables go on as they were."""
        if self._looking is not None:
            self._tell(self._groups)

    def replace(self, groups: Iterable[Group[T]]) -> None:
        """Takes `groups` in place of those before: a timetable that stays keeps its grid, a new one starts at once."""
        self._set(groups)
        if self._looking is not None:
            self.look()

    @property
    def next_starts(self) -> dict[Trigger, datetime]:
        """When each timetable starts next; `trigger.NEVER` where it does not."""
        return self._agenda.next_starts()

    def look(self) -> None:
        """Tells what is due, and sets the alarm for the next start. Called by the clockwork itself."""
        now = self._now()
        due = self._agenda.take(now)
        for one in due:
            if one.late >= _LATE:
                self._log.warning("schedule.late", seconds=round(one.late.total_seconds()))
        self._tell(one.trigger for one in due)
        self._set_alarm(now)

    def _set(self, groups: Iterable[Group[T]]) -> None:
        self._groups = {group.trigger: group for group in groups}
        self._waiting = {trigger: None for trigger in self._waiting if trigger in self._groups}
        self._agenda.replace(self._groups, self._now())

    async def _keep_looking(self) -> None:
        while True:
            try:
                self.look()
            except Exception as error:  # noqa: BLE001  # a clockwork that stood still would be an outage
                self._log.error("schedule.failed", exception=type(error).__name__)
            await asyncio.sleep(self._look_seconds)

    def _set_alarm(self, now: datetime) -> None:
        pause = min(
            max((min(self._agenda.next_starts().values(), default=NEVER) - now).total_seconds(), 0.0),
            self._look_seconds,
        )
        self._scheduler.add_job(
            self._alarm,
            # By APScheduler's clock, which is not the one that was handed in.
            DateTrigger(run_date=datetime.now(UTC) + timedelta(seconds=pause), timezone=UTC),
            id="next start",
            replace_existing=True,
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,  # its default of one second would leave a late start out
        )

    async def _alarm(self) -> None:
        # Not from within the job: it is over before the next alarm is set, so that `max_instances` never holds it back.
        asyncio.get_running_loop().call_soon(self._ring)

    def _ring(self) -> None:
        if self._looking is not None:
            self.look()

    def _tell(self, triggers: Iterable[Trigger]) -> None:
        self._waiting |= dict.fromkeys(triggers)
        if self._waiting and (self._telling is None or self._telling.done()):
            self._telling = asyncio.create_task(self._tell_all(), name="clockwork: due")

    async def _tell_all(self) -> None:
        while self._waiting:
            groups = tuple(self._groups[trigger] for trigger in self._waiting)
            self._waiting = {}
            try:
                told = self._due(groups)
                if inspect.isawaitable(told):
                    await told
            except Exception as error:  # noqa: BLE001  # whatever a start meets, the next one must come
                self._log.error("schedule.failed", exception=type(error).__name__)
