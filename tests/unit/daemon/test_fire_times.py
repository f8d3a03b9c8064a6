"""Fire times of intervals and crontabs, also where clocks and calendars are odd."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.config.model import Schedule
from keysync.daemon.fire_times import following, interval_of

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def cron(line: str, zone: str | None = None) -> Schedule:
    return Schedule(cron=line, timezone=zone)


def after(schedule: Schedule, moment: datetime) -> datetime:
    """The next fire time, which exists."""
    found = following(schedule, moment)
    assert found is not None
    return found


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def starts(schedule: Schedule, moment: datetime, until: datetime) -> list[datetime]:
    """All fire times after `moment`, `until` included."""
    times: list[datetime] = []
    while (moment := after(schedule, moment)) <= until:
        times.append(moment)
    return times


@pytest.mark.parametrize(
    ("line", "zone", "begin", "expected"),
    [
        # Skipped by spring-forward: it starts at the moment of the change, once.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T03:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        (
            "30 2 * * *",
            "America/New_York",
            "2026-03-07T03:00-05:00",
            ["2026-03-08T03:00-04:00", "2026-03-09T02:30-04:00"],
        ),
        (
            "30 0 * * *",
            "America/Sao_Paulo",
            "2018-11-03T01:00-03:00",
            ["2018-11-04T01:00-02:00", "2018-11-05T00:30-02:00"],
        ),
        # Several skipped ones are one start.
        (
            "0,30 2,3 * * *",
            "Europe/Berlin",
            "2026-03-28T04:00+01:00",
            ["2026-03-29T03:00+02:00", "2026-03-29T03:30+02:00"],
        ),
        # Twice in autumn: it starts at its first.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T03:00+02:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        (
            "30 1 * * *",
            "America/New_York",
            "2026-10-31T02:00-04:00",
            ["2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"],
        ),
        ("0 0 * * *", "America/Havana", "2026-10-31T01:00-04:00", ["2026-11-01T00:00-04:00", "2026-11-02T00:00-05:00"]),
        # Asked from within the repeated hour.
        ("45 2 * * *", "Europe/Berlin", "2026-10-25T02:30+01:00", ["2026-10-26T02:45+01:00"]),
        ("45 2 * * *", "Europe/Berlin", "2026-10-25T02:30+02:00", ["2026-10-25T02:45+02:00"]),
        # Every hour is every real hour.
        ("0 * * * *", "Europe/Berlin", "2026-10-25T02:00+02:00", ["2026-10-25T02:00+01:00", "2026-10-25T03:00+01:00"]),
        ("0 * * * *", "Europe/Berlin", "2026-03-29T01:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-29T04:00+02:00"]),
        # Leap day, and no leap day; days of the week by name; UTC without a zone.
        ("0 0 29 2 *", None, "2026-01-01T00:00Z", ["2028-02-29T00:00Z", "2032-02-29T00:00Z"]),
        ("0 12 28 2 *", None, "2028-02-28T12:00Z", ["2029-02-28T12:00Z"]),
        ("0 9 * * mon", "Asia/Tokyo", "2026-06-01T09:00+09:00", ["2026-06-08T09:00+09:00"]),
    ],
)
def test_a_crontab_where_clocks_and_calendars_are_odd(line: str, zone: str | None, begin: str, expected: list[str]):
    """A named time starts once a day, whatever the clock does; a starred one goes by the clock."""
    moment = at(begin)
    for text in expected:
        moment = after(cron(line, zone), moment)
        assert moment == at(text)


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Kolkata"]
)
def test_every_five_minutes_is_every_five_real_minutes_all_year(zone: str):
    """No change of clocks makes a gap or a burst."""
    begin = datetime(2026, 1, 1, tzinfo=UTC) if zone != "America/Sao_Paulo" else datetime(2018, 1, 1, tzinfo=UTC)
    changes = [day for day in (begin + DAY * n for n in range(365)) if _offset(day, zone) != _offset(day + DAY, zone)]
    for day in changes or [begin]:
        times = starts(cron("*/5 * * * *", zone), day - MINUTE, day + 2 * DAY)
        assert times == [day + n * 5 * MINUTE for n in range(2 * 24 * 12 + 1)]


def _offset(moment: datetime, zone: str) -> timedelta | None:
    return moment.astimezone(ZoneInfo(zone)).utcoffset()


CHANGES = {
    "Europe/Berlin": [date(2026, 3, 29), date(2026, 10, 25)],
    "America/New_York": [date(2026, 3, 8), date(2026, 11, 1)],
    "Australia/Lord_Howe": [date(2026, 4, 5), date(2026, 10, 4)],
    "America/Sao_Paulo": [date(2018, 2, 18), date(2018, 11, 4)],
    "America/Havana": [date(2026, 3, 8), date(2026, 11, 1)],
}


@given(st.sampled_from(sorted(CHANGES)), st.integers(0, 1), st.integers(0, 23), st.integers(0, 59))
def test_a_daily_time_starts_once_on_every_day(zone: str, which: int, hour: int, minute: int):
    """Around a change, each day has one start: at its time, or right after a skipped time."""
    change = datetime.combine(CHANGES[zone][which], datetime.min.time(), ZoneInfo(zone)).astimezone(UTC)
    times = [
        time.astimezone(ZoneInfo(zone))
        for time in starts(cron(f"{minute} {hour} * * *", zone), change - 3 * DAY, change + 4 * DAY)
    ]
    days = Counter(time.date() for time in times)
    dates = [CHANGES[zone][which] + DAY * n for n in range(-2, 3)]
    assert [days[day] for day in dates] == [1] * 5
    for time in times:
        named = time.replace(hour=hour, minute=minute, fold=0)
        skipped = named.astimezone(UTC).astimezone(ZoneInfo(zone)).hour != hour or (
            named.astimezone(UTC).astimezone(ZoneInfo(zone)).minute != minute
        )
        assert time.fold == 0
        assert skipped or (time.hour, time.minute) == (hour, minute)
        assert not skipped or _offset(time.astimezone(UTC), zone) != _offset(time.astimezone(UTC) - MINUTE, zone)


@given(st.sampled_from(sorted(CHANGES)), st.integers(0, 1), st.sampled_from([1, 7, 15, 30]), st.integers(-600, 1800))
def test_a_starred_crontab_starts_whenever_the_clock_shows_it(zone: str, which: int, step: int, offset: int):
    """The next start is the first real minute at which the clock of the zone shows a time of the crontab."""
    change = datetime.combine(CHANGES[zone][which], datetime.min.time(), ZoneInfo(zone)).astimezone(UTC)
    begin_at = change + offset * MINUTE
    moment = begin_at + MINUTE
    while moment.astimezone(ZoneInfo(zone)).minute % step:
        moment += MINUTE
    assert following(cron(f"*/{step} * * * *", zone), begin_at) == moment


@pytest.mark.parametrize(
    ("line", "days"),
    [
        ("0 9 * * 1-5", [1, 2, 3, 4, 5, 8, 9, 10, 11, 12]),
        ("0 9 * * mon-fri", [1, 2, 3, 4, 5, 8, 9, 10, 11, 12]),
        ("0 9 * * 0", [7, 14]),
        ("0 9 * * 7", [7, 14]),
        ("0 9 * * SUN", [7, 14]),
        ("0 9 * * 5-7", [5, 6, 7, 12, 13, 14]),
        ("0 9 * * 1,3", [1, 3, 8, 10]),
        ("0 9 13 * *", [13]),
        ("0 9 13 * 5", [5, 12, 13]),  # the 13th, and each Friday
        ("0 9 */10 * 1", [1]),  # a field that starts with a star restricts the other
    ],
)
def test_weekdays_are_numbered_and_joined_as_in_crontab(line: str, days: list[int]):
    """0 and 7 are Sunday; of day and weekday either is enough, unless one of them starts with a star."""
    monday = datetime(2026, 6, 1, tzinfo=UTC)
    assert starts(cron(line), monday, monday + 14 * DAY) == [monday.replace(day=day, hour=9) for day in days]


def test_a_day_that_does_not_exist_has_no_fire_time():
    """30 February never comes."""
    assert following(cron("0 0 30 2 *", "Europe/Berlin"), NOON) is None
    assert following(cron("* * 30 2 *"), NOON, 3) is None


def test_a_count_of_fire_times():
    """`following` counts fire times; of an interval the given moment is one."""
    assert following(Schedule(every=5 * MINUTE), NOON, 3) == NOON + 15 * MINUTE
    assert following(cron("0 0 * * *"), NOON, 3) == at("2026-06-04T00:00Z")


def test_the_interval_of_a_schedule():
    """Of a crontab, the shortest of its next ones; a day that never comes is longer than a year."""
    assert interval_of(Schedule(every=timedelta(seconds=7)), NOON) == timedelta(seconds=7)
    assert interval_of(cron("*/10 * * * *"), NOON) == timedelta(minutes=10)
    assert interval_of(cron("0,10 * * * *"), NOON) == timedelta(minutes=10)
    assert interval_of(cron("0 3 * * *"), NOON) == timedelta(days=1)
    assert interval_of(cron("0 0 30 2 *"), NOON) == timedelta(days=366)
