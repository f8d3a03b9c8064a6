"""Fire times: pure calculation on instants in UTC. Nothing here waits or reads a clock."""

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
"""The next fire time of a crontab for a day that does not exist, such as 30 February."""

_NO_TIME: Final = timedelta(0)

_STARTS_COMPARED: Final = 12

# A smaller step back of the clock is a correction (NTP). After a larger one, earlier times are not trusted.
_CORRECTION: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a run: its fire time by the schedule, and `at`, the fire time plus jitter."""

    fire_time: datetime
    at: datetime


@dataclass(frozen=True, slots=True)
class Trigger:
    """Computes the fire times of a schedule. Exactly one of `every` and `cron` is set; `timezone` is an IANA name, else UTC.

    A random jitter is drawn for each start. It is at most the time until the next fire time, and never moves later ones.

    A crontab follows the wall clock of its zone. A crontab with a fixed minute and hour (``30 2 * * *``) fires exactly once
    a day when the clock changes: a skipped time fires at the change, a repeated time fires the first time. A crontab with
    ``*`` in the minute or hour (``*/5 * * * *``) follows the displayed time: it fires in both repeated hours and not in the
    skipped one, so every five real minutes. This is the rule of Debian's cron(8), "Daylight Saving Time and other time
    changes". Fields are those of crontab(5); 0 and 7 are Sunday.
    """

    every: timedelta | None
    jitter: timedelta = _NO_TIME
    cron: str | None = None
    timezone: str | None = None

    @classmethod
    def of(cls, schedule: Schedule) -> Trigger:
        """The trigger of a configured schedule."""
        return cls(schedule.every, schedule.jitter, schedule.cron, schedule.timezone)

    def next_start(self, after: datetime | None, now: datetime, random: Random) -> Start:
        """The start after the fire time `after`; at once if `after` is None (no start yet).

        Fire times that have passed by `now` are coalesced into one start at `now`. If the clock was set back to before
        `after`, the start is at most one interval after `now` (for a crontab: at its next fire time).
        """
        if after is None:
            return Start(now, now)
        fire_time = self._next_fire_time(after, now)
        if fire_time <= now:
            return Start(self.latest(fire_time, now), now)
        return Start(fire_time, self._jittered(fire_time, random))

    def latest(self, fire_time: datetime, now: datetime) -> datetime:
        """The last fire time up to `now`, counted from an earlier `fire_time`. The next fire time is computed from it.

        For a crontab it is `now`, because its fire times do not depend on earlier ones.
        """
        if self.every is None:
            return max(fire_time, now)
        return fire_time + max(0, (now - fire_time) // self.every) * self.every

    def following(self, moment: datetime, count: int = 1) -> datetime:
        """The `count`-th fire time after `moment`; NEVER if there is none. For an interval `moment` counts as a fire time."""
        if self.every is not None:
            return moment + count * self.every if count * self.every < NEVER - moment else NEVER
        for _ in range(count):
            moment = _next_time(self.cron or "", self.timezone, moment)
        return moment

    def _next_fire_time(self, after: datetime, now: datetime) -> datetime:
        back = after - now
        if self.every is None:
            return self.following(now if back >= _CORRECTION else after)
        if back <= _NO_TIME:
            return self.following(after)
        # The time since the last start is unknown. An extra start costs a few calls; a late one is an outage.
        return now if back >= min(_CORRECTION, self.every) else now + self.every

    def _jittered(self, fire_time: datetime, random: Random) -> datetime:
        if not self.jitter or fire_time == NEVER:
            return fire_time
        room = min(self.jitter, self.following(fire_time) - fire_time)
        return fire_time + random.random() * room  # nosec B311  # when a run starts is no secret


def interval_of(schedule: Schedule, now: datetime) -> timedelta:
    """The time between two starts. For a crontab it is the shortest time between its next fire times."""
    if schedule.every is not None:
        return schedule.every
    trigger = Trigger.of(schedule)
    starts = [trigger.following(now)]
    while starts[-1] != NEVER and len(starts) < _STARTS_COMPARED:
        starts.append(trigger.following(starts[-1]))
    gaps = [later - sooner for sooner, later in pairwise(starts) if later != NEVER]
    return min(gaps, default=timedelta(days=366))


@lru_cache(maxsize=64)
def _trigger(cron: str, zone: str | None) -> CrontabTrigger:
    from keysync.daemon.crontab import CrontabTrigger  # noqa: PLC0415  # APScheduler is loaded only where a crontab is used

    return CrontabTrigger(cron, zone)


def _next_time(cron: str, zone: str | None, after: datetime) -> datetime:
    """The first fire time of `cron` after `after`; NEVER if there is none."""
    if after == NEVER:
        return NEVER
    return _trigger(cron, zone).get_next_fire_time(after, after) or NEVER


@dataclass(frozen=True, slots=True)
class Due:
    """A trigger that fires, and the delay of its start."""

    trigger: Trigger
    late: timedelta


@dataclass(slots=True)
class _Entry:
    last: datetime | None
    next: Start


@dataclass(slots=True)
class FireTimes:
    """The next starts of several triggers.

    Call it every few seconds, so that it notices when the clock was set back.
    """

    random: Random
    _entries: dict[Trigger, _Entry] = field(default_factory=dict[Trigger, _Entry])
    _last_now: datetime | None = None

    def replace(self, triggers: Iterable[Trigger], now: datetime) -> None:
        """Replaces the triggers. A trigger that stays keeps its fire times; a new trigger fires at once."""
        self._entries = {
            trigger: self._entries.get(trigger) or _Entry(None, trigger.next_start(None, now, self.random))
            for trigger in triggers
        }
        self._check_clock(now)

    def take(self, now: datetime) -> tuple[Due, ...]:
        """The triggers that are due at `now`. Missed fire times of a trigger are coalesced; its next start is computed."""
        self._check_clock(now)
        return tuple(
            self._take(trigger, entry, now) for trigger, entry in self._entries.items() if entry.next.at <= now
        )

    def next_starts(self) -> dict[Trigger, datetime]:
        """The next start of each trigger; NEVER if there is none."""
        return {trigger: entry.next.at for trigger, entry in self._entries.items()}

    def _take(self, trigger: Trigger, entry: _Entry, now: datetime) -> Due:
        due = Due(trigger, now - entry.next.at)
        entry.last = trigger.latest(entry.next.fire_time, now)
        entry.next = trigger.next_start(entry.last, now, self.random)
        return due

    def _check_clock(self, now: datetime) -> None:
        if self._last_now is not None and now < self._last_now:
            for trigger, entry in self._entries.items():
                entry.next = trigger.next_start(entry.last, now, self.random)
        self._last_now = now
