"""When passes are to start: pure calculation on instants in UTC; nothing here waits or reads a clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from keysync.config.settings import Schedule

if TYPE_CHECKING:
    from apscheduler.triggers.cron import CronTrigger

NEVER: Final = datetime.max.replace(tzinfo=UTC)
"""The next start by a crontab of a day that does not exist, such as 30 February."""

_NO_TIME: Final = timedelta(0)
_SECOND: Final = timedelta(seconds=1)

_STARTS_LOOKED_AT: Final = 12

# Where the search for a next time ends: up to the year 9999 a day that never comes takes CronTrigger half a second.
_END: Final = datetime(2200, 1, 1, tzinfo=UTC)

# A step back of the clock that is smaller is a correction (NTP); one that is larger says that the clock was wrong.
_CORRECTION: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Start:
    """One start: `slot` is its place on the grid, `at` the moment itself, later by the jitter."""

    slot: datetime
    at: datetime


@dataclass(frozen=True, slots=True)
class Timetable:
    """A schedule as a calculation: exactly one of `every` and `cron` is set; `timezone` is an IANA name, else UTC.

    `jitter` is drawn anew for each start, at most as long as the time to the slot after it, and never moves the grid.

    A crontab reads the wall clock of its zone. Where clocks change, one that names both minute and hour
    (``30 2 * * *``) starts exactly once a day: a time that is skipped starts at the moment of the change, a time that
    comes twice at its first. One with a ``*`` in either (``*/5 * * * *``) goes by what the clock shows, so it starts in
    both of the repeated hours and in none of the skipped one: every five real minutes throughout. It is the rule of
    Debian's cron(8), "Daylight Saving Time and other time changes".
    """

    every: timedelta | None
    jitter: timedelta = _NO_TIME
    cron: str | None = None
    timezone: str | None = None

    @classmethod
    def of(cls, schedule: Schedule) -> Timetable:
        """The timetable of a schedule of the configuration."""
        return cls(schedule.every, schedule.jitter, schedule.cron, schedule.timezone)

    def next_start(self, after: datetime | None, now: datetime, random: Random) -> Start:
        """The start that follows the one in slot `after`; None: there was none yet, so it is at once.

        Slots that have passed by `now` make one start, now. Where the clock was set back behind `after`, the start is
        never more than one interval from `now` (with a crontab: never later than its next time).
        """
        if after is None:
            return Start(now, now)
        slot = self._next_slot(after, now)
        if slot <= now:
            return Start(self.latest(slot, now), now)
        return Start(slot, self._jittered(slot, random))

    def latest(self, slot: datetime, now: datetime) -> datetime:
        """The last slot by `now`, given an earlier one: where the grid goes on after a start in `slot`, however late.

        Of a crontab, whose times do not depend on one another, it is `now` itself.
        """
        if self.every is None:
            return max(slot, now)
        return slot + max(0, (now - slot) // self.every) * self.every

    def following(self, moment: datetime, count: int = 1) -> datetime:
        """The slot that is `count` slots after `moment`, taken as a slot of the grid; NEVER where there is none."""
        if self.every is not None:
            return moment + count * self.every if count * self.every < NEVER - moment else NEVER
        for _ in range(count):
            moment = _next_time(self.cron or "", self.timezone or "UTC", moment)
        return moment

    def _next_slot(self, after: datetime, now: datetime) -> datetime:
        back = after - now
        if self.every is None:
            return self.following(now if back >= _CORRECTION else after)
        if back <= _NO_TIME:
            return self.following(after)
        # How long ago the last start was, nobody knows: a start too many costs a few calls, a late one is an outage.
        return now if back >= min(_CORRECTION, self.every) else now + self.every

    def _jittered(self, slot: datetime, random: Random) -> datetime:
        if not self.jitter or slot == NEVER:
            return slot
        room = min(self.jitter, self.following(slot) - slot)
        return slot + random.random() * room  # nosec B311  # when a pass starts is no secret


def interval_of(schedule: Schedule, now: datetime) -> timedelta:
    """How long it is from one start to the next; for a crontab, the shortest of the times between those that come next."""
    if schedule.every is not None:
        return schedule.every
    timetable = Timetable.of(schedule)
    starts = [timetable.following(now)]
    while starts[-1] != NEVER and len(starts) < _STARTS_LOOKED_AT:
        starts.append(timetable.following(starts[-1]))
    gaps = [later - sooner for sooner, later in pairwise(starts) if later != NEVER]
    return min(gaps, default=timedelta(days=366))


@lru_cache(maxsize=64)
def _trigger(cron: str, zone: str) -> CronTrigger:
    from apscheduler.triggers.cron import CronTrigger  # noqa: PLC0415  # 40 ms that only a crontab has to pay

    minute, hour, day, month, weekday = cron.split()
    return CronTrigger(
        minute=minute,
        hour=hour,
        day=day,
        month=month,
        day_of_week=weekday,
        timezone=ZoneInfo(zone),
        end_date=_END,
    )


def _next_time(cron: str, zone: str, after: datetime) -> datetime:
    """The first time of `cron` after `after`, which may be NEVER."""
    if after == NEVER:
        return NEVER
    minute, hour = cron.split()[:2]
    if minute.startswith("*") or hour.startswith("*"):
        return _fire_time(cron, zone, after) or NEVER
    return _next_fixed_time(cron, ZoneInfo(zone), after)


def _next_fixed_time(cron: str, zone: ZoneInfo, after: datetime) -> datetime:
    # CronTrigger leaves out a day whose time was skipped at midnight (Sao Paulo), moves other skipped times by an hour,
    # and takes both of a repeated time. On a clock that never changes it is right, so ask there and translate.
    moment = _wall(after, zone)
    while (wall := _fire_time(cron, "UTC", moment)) is not None:
        moment = wall
        instant = _instant(wall, zone)
        if instant > after:
            return instant
    return NEVER


def _fire_time(cron: str, zone: str, after: datetime) -> datetime | None:
    # CronTrigger looks from a moment on, that moment included.
    found: datetime | None = _trigger(cron, zone).get_next_fire_time(
        None, (after + timedelta(microseconds=1)).astimezone(ZoneInfo(zone))
    )
    return None if found is None else found.astimezone(UTC)


def _wall(instant: datetime, zone: ZoneInfo) -> datetime:
    """What the clock of `zone` shows at `instant`, as if it were UTC."""
    return instant.astimezone(zone).replace(tzinfo=UTC, fold=0)


def _instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """When the clock of `zone` shows `wall` for the first time, or passes over it."""
    instant = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if _wall(instant, zone) == wall:
        return instant
    # Skipped: read by the offset after the change it lies before the change, and by the one before it lies after.
    before, since = wall.replace(tzinfo=zone, fold=1).astimezone(UTC), instant
    while since - before > _SECOND:
        middle = before + (since - before) // 2
        before, since = (middle, since) if _wall(middle, zone) < wall else (before, middle)
    return since.replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Due:
    """A timetable whose start has come, and by how much it is late."""

    timetable: Timetable
    late: timedelta


@dataclass(slots=True)
class _Entry:
    last: datetime | None
    next: Start


@dataclass(slots=True)
class Agenda:
    """What is due, and when to look again, for several timetables at once.

    It must be asked every few seconds: only then does it see that the clock was set back.
    """

    random: Random
    _entries: dict[Timetable, _Entry] = field(default_factory=dict)
    _seen: datetime | None = None

    def replace(self, timetables: Iterable[Timetable], now: datetime) -> None:
        """Takes `timetables` in place of those before; one that was there keeps its grid, a new one starts at once."""
        self._entries = {
            timetable: self._entries.get(timetable) or _Entry(None, timetable.next_start(None, now, self.random))
            for timetable in timetables
        }
        self._look_at_the_clock(now)

    def take(self, now: datetime) -> tuple[Due, ...]:
        """What is due at `now`, each once however many of its slots have passed; it is not due again until its next."""
        self._look_at_the_clock(now)
        return tuple(
            self._take(timetable, entry, now) for timetable, entry in self._entries.items() if entry.next.at <= now
        )

    def next_starts(self) -> dict[Timetable, datetime]:
        """When each timetable starts next; NEVER where it does not."""
        return {timetable: entry.next.at for timetable, entry in self._entries.items()}

    def _take(self, timetable: Timetable, entry: _Entry, now: datetime) -> Due:
        due = Due(timetable, now - entry.next.at)
        entry.last = timetable.latest(entry.next.slot, now)
        entry.next = timetable.next_start(entry.last, now, self.random)
        return due

    def _look_at_the_clock(self, now: datetime) -> None:
        if self._seen is not None and now < self._seen:
            for timetable, entry in self._entries.items():
                entry.next = timetable.next_start(entry.last, now, self.random)
        self._seen = now
