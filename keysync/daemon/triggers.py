"""When runs are to start: pure calculation on instants in UTC; nothing here waits or reads a clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Final

from keysync.config.settings import Schedule

if TYPE_CHECKING:
    from keysync.daemon.crontab import CrontabTrigger

NEVER: Final = datetime.max.replace(tzinfo=UTC)
"""The next start by a crontab of a day that does not exist, such as 30 February."""

_NO_TIME: Final = timedelta(0)

_STARTS_LOOKED_AT: Final = 12

# A step back of the clock that is smaller is a correction (NTP); one that is larger says that the clock was wrong.
_CORRECTION: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Start:
    """One start: `slot` is its place on the grid, `at` the moment itself, later by the jitter."""

    slot: datetime
    at: datetime


@dataclass(frozen=True, slots=True)
class Trigger:
    """A schedule as a calculation: exactly one of `every` and `cron` is set; `timezone` is an IANA name, else UTC.

    `jitter` is drawn anew for each start, at most as long as the time to the slot after it, and never moves the grid.

    A crontab reads the wall clock of its zone. Where clocks change, one that names both minute and hour
    (``30 2 * * *``) starts exactly once a day: a time that is skipped starts at the moment of the change, a time that
    comes twice at its first. One with a ``*`` in either (``*/5 * * * *``) goes by what the clock shows, so it starts in
    both of the repeated hours and in none of the skipped one: every five real minutes throughout. It is the rule of
    Debian's cron(8), "Daylight Saving Time and other time changes". Fields mean what crontab(5) says: 0 and 7 are Sunday.
    """

    every: timedelta | None
    jitter: timedelta = _NO_TIME
    cron: str | None = None
    timezone: str | None = None

    @classmethod
    def of(cls, schedule: Schedule) -> Trigger:
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
            moment = _next_time(self.cron or "", self.timezone, moment)
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
        return slot + random.random() * room  # nosec B311  # when a run starts is no secret


def interval_of(schedule: Schedule, now: datetime) -> timedelta:
    """How long it is from one start to the next; for a crontab, the shortest of the times between those that come next."""
    if schedule.every is not None:
        return schedule.every
    trigger = Trigger.of(schedule)
    starts = [trigger.following(now)]
    while starts[-1] != NEVER and len(starts) < _STARTS_LOOKED_AT:
        starts.append(trigger.following(starts[-1]))
    gaps = [later - sooner for sooner, later in pairwise(starts) if later != NEVER]
    return min(gaps, default=timedelta(days=366))


@lru_cache(maxsize=64)
def _trigger(cron: str, zone: str | None) -> CrontabTrigger:
    from keysync.daemon.crontab import CrontabTrigger  # noqa: PLC0415  # APScheduler is loaded only where a crontab is used

    return CrontabTrigger(cron, zone)


def _next_time(cron: str, zone: str | None, after: datetime) -> datetime:
    """The first time of `cron` after `after`, which may be NEVER."""
    if after == NEVER:
        return NEVER
    return _trigger(cron, zone).get_next_fire_time(after, after) or NEVER


@dataclass(frozen=True, slots=True)
class Due:
    """A timetable whose start has come, and by how much it is late."""

    trigger: Trigger
    late: timedelta


@dataclass(slots=True)
class _Entry:
    last: datetime | None
    next: Start


@dataclass(slots=True)
class FireTimes:
    """What is due, and when to look again, for several timetables at once.

    It must be asked every few seconds: only then does it see that the clock was set back.
    """

    random: Random
    _entries: dict[Trigger, _Entry] = field(default_factory=dict)
    _seen: datetime | None = None

    def replace(self, triggers: Iterable[Trigger], now: datetime) -> None:
        """Takes `triggers` in place of those before; one that was there keeps its grid, a new one starts at once."""
        self._entries = {
            trigger: self._entries.get(trigger) or _Entry(None, trigger.next_start(None, now, self.random))
            for trigger in triggers
        }
        self._look_at_the_clock(now)

    def take(self, now: datetime) -> tuple[Due, ...]:
        """What is due at `now`, each once however many of its slots have passed; it is not due again until its next."""
        self._look_at_the_clock(now)
        return tuple(
            self._take(trigger, entry, now) for trigger, entry in self._entries.items() if entry.next.at <= now
        )

    def next_starts(self) -> dict[Trigger, datetime]:
        """When each timetable starts next; NEVER where it does not."""
        return {trigger: entry.next.at for trigger, entry in self._entries.items()}

    def _take(self, trigger: Trigger, entry: _Entry, now: datetime) -> Due:
        due = Due(trigger, now - entry.next.at)
        entry.last = trigger.latest(entry.next.slot, now)
        entry.next = trigger.next_start(entry.last, now, self.random)
        return due

    def _look_at_the_clock(self, now: datetime) -> None:
        if self._seen is not None and now < self._seen:
            for trigger, entry in self._entries.items():
                entry.next = trigger.next_start(entry.last, now, self.random)
        self._seen = now
