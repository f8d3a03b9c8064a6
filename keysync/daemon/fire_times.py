"""Fire times of schedules: pure calculation on instants in UTC. Nothing here waits or reads a clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice, pairwise
from typing import Final

from cronsim import CronSim, CronSimError

from keysync.config.formats import zone_of
from keysync.config.model import Schedule

_COMPARED: Final = 12


def crontab_times(cron: str, timezone: str | None, after: datetime) -> Iterator[datetime]:
    """The fire times of a crontab after `after`, in UTC; `timezone` is an IANA name, else UTC. Ends where none comes in 50 years.

    A crontab follows the wall clock of its zone. A crontab with a fixed minute and hour (``30 2 * * *``) fires exactly once
    a day when the clock changes: a skipped time fires at the change, a repeated time fires the first time. A crontab with
    ``*`` in the minute or hour (``*/5 * * * *``) follows the displayed time: it fires in both repeated hours and not in the
    skipped one, so every five real minutes. This is the rule of Debian's cron(8), "Daylight Saving Time and other time
    changes". Fields are those of crontab(5); 0 and 7 are Sunday.
    """
    try:
        for local in CronSim(cron, after.astimezone(zone_of(timezone))):
            # In a repeated hour, cronsim also returns times of the first of the two hours.
            if (time := local.astimezone(UTC)) > after:
                yield time
    except CronSimError:
        return  # a day that does not exist, such as 30 February


def following(schedule: Schedule, moment: datetime, count: int = 1) -> datetime | None:
    """The `count`-th fire time after `moment`, without jitter; None if there is none. For an interval `moment` is one."""
    return moment + count * schedule.every if schedule.every is not None else _following(schedule, moment, count)


@lru_cache(maxsize=1024)  # a fire time takes 60 to 110 µs, and the accounts of a run ask for the same ones
def _following(schedule: Schedule, moment: datetime, count: int) -> datetime | None:
    return next(islice(crontab_times(schedule.cron or "", schedule.timezone, moment), count - 1, None), None)


def interval_of(schedule: Schedule, now: datetime) -> timedelta:
    """The time between two starts. For a crontab it is the shortest time between its next fire times."""
    if schedule.every is not None:
        return schedule.every
    times = islice(crontab_times(schedule.cron or "", schedule.timezone, now), _COMPARED)
    return min((later - sooner for sooner, later in pairwise(times)), default=timedelta(days=366))
