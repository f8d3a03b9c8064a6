"""Starts come on a grid, whatever happens to the clock."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from hypothesis import given
from hypothesis import strategies as st

from keysync.config.settings import Schedule
from keysync.daemon.crontab import CrontabTrigger
from keysync.daemon.triggers import NEVER, Due, FireTimes, Start, Trigger
from tests.support.virtual_clock import seeded

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NONE = timedelta(0)
FIVE = Trigger(5 * MINUTE)


def cron(line: str, zone: str | None = None, jitter: timedelta = NONE) -> Trigger:
    return Trigger(None, jitter, line, zone)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def starts(trigger: Trigger, after: datetime, until: datetime) -> list[datetime]:
    """All slots after `after`, `until` included."""
    found = []
    while (after := trigger.following(after)) <= until:
        found.append(after)
    return found


durations = st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=3))
elapsed = st.timedeltas(min_value=NONE, max_value=timedelta(days=30))
seeds = st.integers(0, 2**32).map(seeded)
triggers = st.one_of(
    st.builds(Trigger, durations, st.timedeltas(min_value=NONE, max_value=timedelta(hours=2))),
    st.sampled_from(
        [cron("*/5 * * * *"), cron("30 2 * * *", "Europe/Berlin"), cron("0 9-17 * * mon-fri", "Asia/Tokyo", HOUR)]
    ),
)


def test_a_schedule_of_the_configuration_is_taken_over_whole():
    """Nothing of a schedule gets lost on the way."""
    assert Trigger.of(Schedule(every=HOUR, jitter=MINUTE)) == Trigger(HOUR, MINUTE, None, None)
    assert Trigger.of(Schedule(cron="0 3 * * *", timezone="Asia/Tokyo")) == cron("0 3 * * *", "Asia/Tokyo")
    assert Trigger.of(Schedule(every=5 * MINUTE)) == FIVE


@given(triggers, seeds)
def test_the_first_start_is_at_once(trigger: Trigger, random: Random):
    """A daemon that begins closes the gap before all else, without jitter."""
    assert trigger.next_start(None, NOON, random) == Start(NOON, NOON)


@given(durations, elapsed, seeds)
def test_an_interval_keeps_its_grid(every: timedelta, since: timedelta, random: Random):
    """The next slot is a whole number of intervals after the last; what has passed makes one start, now."""
    now = NOON + since
    start = Trigger(every).next_start(NOON, now, random)
    assert (start.fire_time - NOON) % every == NONE
    assert start.fire_time > NOON
    assert now - every < start.fire_time <= now + every
    assert start.at == max(start.fire_time, now)


@given(durations, st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(days=400)), seeds)
def test_a_clock_that_was_set_back_delays_by_one_interval_at_most(every: timedelta, back: timedelta, random: Random):
    """The next start is never further than an interval, and a mere correction makes no extra start."""
    now = NOON - back
    start = Trigger(every).next_start(NOON, now, random)
    assert now <= start.at <= now + every
    if back < min(every, MINUTE):
        assert start.at == now + every


def test_a_clock_that_was_far_ahead_brings_a_start_at_once():
    """The time since the last start is unknown, so the trigger counts as overdue. A small correction does not."""
    assert FIVE.next_start(NOON, NOON - HOUR, seeded()) == Start(NOON - HOUR, NOON - HOUR)
    assert FIVE.next_start(NOON, NOON - MINUTE, seeded()) == Start(NOON - MINUTE, NOON - MINUTE)
    assert FIVE.next_start(NOON, NOON - MINUTE / 2, seeded()).at == NOON - MINUTE / 2 + 5 * MINUTE


def test_what_is_overdue_is_not_delayed_by_jitter():
    """Jitter is for starts to come; one that is late is late enough."""
    trigger = Trigger(5 * MINUTE, 4 * MINUTE)
    for now in (NOON + 5 * MINUTE, NOON + 6 * MINUTE):
        assert trigger.next_start(NOON, now, seeded()) == Start(NOON + 5 * MINUTE, now)


@given(st.timedeltas(min_value=MINUTE, max_value=timedelta(days=400)), seeds)
def test_a_crontab_goes_by_a_clock_that_was_set_back(back: timedelta, random: Random):
    """The wall clock says 9, so the next time is the next after 9, and not after the last start at 12."""
    now = NOON - back
    assert now < cron("*/5 * * * *").next_start(NOON, now, random).at <= now + 5 * MINUTE


def test_a_corrected_clock_does_not_repeat_a_time_of_a_crontab():
    """A step back of milliseconds right after a start must not make it start again."""
    now = NOON - timedelta(milliseconds=40)
    assert cron("*/5 * * * *").next_start(NOON, now, seeded()).at == NOON + 5 * MINUTE


@given(triggers, elapsed, seeds)
def test_jitter_is_added_to_a_start_and_not_to_the_grid(trigger: Trigger, since: timedelta, random: Random):
    """A start lies between its slot and the jitter's end, and never as late as the slot after it."""
    after = trigger.following(NOON + since)
    start = trigger.next_start(after, after, random)
    assert start.fire_time == trigger.following(after)
    assert start.fire_time <= start.at <= start.fire_time + trigger.jitter
    assert start.at <= trigger.following(start.fire_time)


def test_jitter_spreads():
    """Two daemons draw differently, over the whole of the jitter."""
    trigger = Trigger(HOUR, 30 * MINUTE)
    drawn = {(trigger.next_start(NOON, NOON, seeded(seed)).at - NOON - HOUR) // (10 * MINUTE) for seed in range(100)}
    assert drawn == {0, 1, 2}


@pytest.mark.parametrize(
    ("line", "zone", "after", "expected"),
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
def test_a_crontab_where_clocks_and_calendars_are_odd(line: str, zone: str | None, after: str, expected: list[str]):
    """A named time starts once a day, whatever the clock does; a starred one goes by the clock."""
    moment = at(after)
    for one in expected:
        moment = cron(line, zone).following(moment)
        assert moment == at(one)


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Kolkata"]
)
def test_every_five_minutes_is_every_five_real_minutes_all_year(zone: str):
    """No change of clocks makes a gap or a burst."""
    begin = datetime(2026, 1, 1, tzinfo=UTC) if zone != "America/Sao_Paulo" else datetime(2018, 1, 1, tzinfo=UTC)
    changes = [day for day in (begin + DAY * n for n in range(365)) if _offset(day, zone) != _offset(day + DAY, zone)]
    for day in changes or [begin]:
        found = starts(cron("*/5 * * * *", zone), day - MINUTE, day + 2 * DAY)
        assert found == [day + n * 5 * MINUTE for n in range(2 * 24 * 12 + 1)]


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
    found = [
        one.astimezone(ZoneInfo(zone))
        for one in starts(cron(f"{minute} {hour} * * *", zone), change - 3 * DAY, change + 4 * DAY)
    ]
    days = Counter(one.date() for one in found)
    whole = [CHANGES[zone][which] + DAY * n for n in range(-2, 3)]
    assert [days[day] for day in whole] == [1] * 5
    for one in found:
        named = one.replace(hour=hour, minute=minute, fold=0)
        skipped = named.astimezone(UTC).astimezone(ZoneInfo(zone)).hour != hour or (
            named.astimezone(UTC).astimezone(ZoneInfo(zone)).minute != minute
        )
        assert one.fold == 0
        assert skipped or (one.hour, one.minute) == (hour, minute)
        assert not skipped or _offset(one.astimezone(UTC), zone) != _offset(one.astimezone(UTC) - MINUTE, zone)


@given(st.sampled_from(sorted(CHANGES)), st.integers(0, 1), st.sampled_from([1, 7, 15, 30]), st.integers(-600, 1800))
def test_a_starred_crontab_starts_whenever_the_clock_shows_it(zone: str, which: int, step: int, offset: int):
    """The next start is the first real minute at which the clock of the zone shows a time of the crontab."""
    change = datetime.combine(CHANGES[zone][which], datetime.min.time(), ZoneInfo(zone)).astimezone(UTC)
    after = change + offset * MINUTE
    moment = after + MINUTE
    while moment.astimezone(ZoneInfo(zone)).minute % step:
        moment += MINUTE
    assert cron(f"*/{step} * * * *", zone).following(after) == moment


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


async def test_apscheduler_starts_a_job_by_a_crontab():
    """The trigger is one of APScheduler's, so a scheduler of it takes the fire times from there."""
    scheduler = AsyncIOScheduler(timezone=UTC)
    scheduler.start(paused=True)
    job = scheduler.add_job(print, CrontabTrigger("0 9 * * 1-5", "Asia/Tokyo"))
    scheduler.shutdown(wait=False)
    assert job.next_run_time.astimezone(ZoneInfo("Asia/Tokyo")).hour == 9
    assert job.next_run_time.astimezone(ZoneInfo("Asia/Tokyo")).weekday() < 5
    assert CrontabTrigger("0 0 30 2 *", None).get_next_fire_time(None, NOON) is None


def test_a_day_that_does_not_exist_never_comes():
    """30 February and an interval beyond all calendars give NEVER, and calculating on with it works."""
    for trigger in (
        cron("0 0 30 2 *", "Europe/Berlin", HOUR),
        cron("* * 30 2 *"),
        Trigger(timedelta(days=9e8), HOUR),
    ):
        assert trigger.following(NOON) == NEVER
        assert trigger.following(NEVER) == NEVER
        assert trigger.next_start(NOON, NOON, seeded()) == Start(NEVER, NEVER)


def test_a_count_of_fire_times():
    """`following` counts slots."""
    assert FIVE.following(NOON, 3) == NOON + 15 * MINUTE
    assert cron("0 0 * * *").following(NOON, 3) == at("2026-06-04T00:00Z")


def agenda(*triggers: Trigger, now: datetime = NOON) -> FireTimes:
    made = FireTimes(seeded())
    made.replace(triggers, now)
    return made


def taken(agenda: FireTimes, now: datetime) -> list[Trigger]:
    return [due.trigger for due in agenda.take(now)]


def first(agenda: FireTimes) -> datetime:
    return min(agenda.next_starts().values(), default=NEVER)


def test_due_once_and_again_on_the_grid():
    """A slow look does not shift the grid."""
    one = agenda(FIVE)
    assert taken(one, NOON) == [FIVE]
    assert taken(one, NOON) == []
    assert first(one) == NOON + 5 * MINUTE
    assert taken(one, NOON + 5 * MINUTE - timedelta(microseconds=1)) == []
    assert one.take(NOON + 6 * MINUTE) == (Due(FIVE, MINUTE),)
    assert first(one) == NOON + 10 * MINUTE


@pytest.mark.parametrize("trigger", [FIVE, cron("*/5 * * * *"), Trigger(5 * MINUTE, 4 * MINUTE)])
def test_after_a_long_sleep_there_is_one_start_and_then_the_grid(trigger: Trigger):
    """Eight hours of suspend are not a hundred starts, nor two."""
    one = agenda(trigger)
    one.take(NOON)
    woken = NOON + 8 * HOUR + 2 * MINUTE
    assert taken(one, woken) == [trigger]
    assert taken(one, woken + timedelta(seconds=1)) == []
    assert NOON + 8 * HOUR + 5 * MINUTE <= first(one) <= NOON + 8 * HOUR + 5 * MINUTE + trigger.jitter


@pytest.mark.parametrize("trigger", [FIVE, cron("*/5 * * * *"), Trigger(5 * MINUTE, 4 * MINUTE)])
def test_after_the_clock_was_set_back_starts_go_on(trigger: Trigger):
    """A clock that was hours ahead and is corrected does not silence the daemon for hours."""
    one = agenda(trigger)
    one.take(NOON)
    assert taken(one, NOON + 3 * HOUR + MINUTE) == [trigger]
    back = NOON + 2 * MINUTE
    one.take(back)
    assert back < first(one) <= back + 5 * MINUTE + trigger.jitter


def test_a_first_start_does_not_wait_for_a_clock_that_was_set_back():
    """What was to start at once starts at once, also where the clock went back before the first look."""
    one = agenda(FIVE)
    assert taken(one, NOON - HOUR) == [FIVE]
    one.replace([FIVE, Trigger(HOUR)], NOON - 2 * HOUR)
    assert Trigger(HOUR) in taken(one, NOON - 2 * HOUR)


def test_a_reload_keeps_the_grid_of_what_stays():
    """Existing triggers keep their fire times; new ones fire at once; removed ones are not due."""
    hourly, one = Trigger(HOUR), agenda(FIVE, Trigger(HOUR))
    one.take(NOON)
    one.replace([FIVE, cron("0 0 * * *")], NOON + MINUTE)
    assert taken(one, NOON + MINUTE) == [cron("0 0 * * *")]
    assert taken(one, NOON + 5 * MINUTE) == [FIVE]
    assert hourly not in taken(one, NOON + 2 * HOUR)
    one.replace([], NOON)
    assert first(one) == NEVER


@given(
    triggers,
    st.lists(st.timedeltas(min_value=timedelta(seconds=-30), max_value=timedelta(hours=3)), max_size=40),
    seeds,
)
def test_no_course_of_the_clock_makes_a_storm_or_a_silence(trigger: Trigger, steps: list[timedelta], random: Random):
    """However the clock moves, a check fires a trigger once, and the next start is at most an interval away."""
    one, now = FireTimes(random), NOON
    one.replace([trigger], now)
    for step in steps:
        now += step
        assert len(one.take(now)) <= 1
        assert one.take(now) == ()
        bound = trigger.following(now + MINUTE) if trigger.every is None else now + trigger.every
        assert now < first(one) <= bound + trigger.jitter


@given(durations, st.lists(st.timedeltas(min_value=NONE, max_value=timedelta(days=1)), min_size=1, max_size=40), seeds)
def test_starts_of_a_steady_clock_are_never_closer_than_their_fire_times(
    every: timedelta, steps: list[timedelta], random: Random
):
    """Over any course of looks there are no more starts than slots, and none is missing at the end."""
    trigger, one, now, count = Trigger(every), FireTimes(random), NOON, 0
    one.replace([trigger], now)
    for step in steps:
        now += step
        count += len(one.take(now))
    assert 1 <= count <= (now - NOON) // every + 1
    assert (first(one) - NOON) % every == NONE
    assert now < first(one) <= now + every
