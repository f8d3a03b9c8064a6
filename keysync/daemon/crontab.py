"""Crontabs as APScheduler triggers."""

from __future__ import annotations

from datetime import UTC, datetime

from apscheduler.triggers.base import BaseTrigger
from cronsim import CronSim, CronSimError

from keysync.config.formats import zone_of


class CrontabTrigger(BaseTrigger):
    """Fire times of a crontab in a time zone, as Debian's cron computes them; UTC without a zone.

    APScheduler's own CronTrigger counts days of the week from Monday and requires both the day and the weekday to match.
    """

    def __init__(self, cron: str, timezone: str | None) -> None:
        self._cron = cron
        self._zone = zone_of(timezone)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The first fire time after `previous_fire_time`, else after `now`, in UTC; None if there is none within 50 years."""
        after = previous_fire_time or now
        try:
            # In a repeated hour, cronsim also returns times of the first of the two hours.
            return next(
                time
                for local in CronSim(self._cron, after.astimezone(self._zone))
                if (time := local.astimezone(UTC)) > after
            )
        except (CronSimError, StopIteration):
            return None  # a day that does not exist, such as 30 February
