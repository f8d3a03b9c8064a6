"""The scheduler starts what fires together once, by the wall clock, whatever that clock does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import time_machine
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from keysync.config.model import Schedule
from keysync.daemon.fire_times import following
from keysync.daemon.scheduler import CrontabTrigger, Scheduler, trigger_of

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
FIVE, HOURLY = Schedule(every=5 * MINUTE), Schedule(every=HOUR)
CRONTAB = Schedule(cron="*/5 * * * *")
BOTH = {FIVE, HOURLY}


class World:
    """A running scheduler at a wall clock that only moves when it is set."""

    def __init__(self, wall: time_machine.Traveller, scheduler: Scheduler, calls: list[set[Schedule]]) -> None:
        self.wall = wall
        self.scheduler = scheduler
        self.calls = calls

    async def at(self, moment: datetime) -> list[set[Schedule]]:
        """Sets the clock, has the scheduler check it, and returns the calls that follow."""
        self.calls.clear()
        self.wall.move_to(moment)
        self.scheduler.check()
        await settle()
        return list(self.calls)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def running(
    *schedules: Schedule, due: Callable[[set[Schedule]], None] = lambda _schedules: None
) -> AsyncIterator[World]:
    calls: list[set[Schedule]] = []

    def record(fired: set[Schedule]) -> None:
        calls.append(fired)
        due(fired)

    with time_machine.travel(NOON, tick=False) as wall:
        scheduler = Scheduler(record, check_seconds=3600)
        scheduler.start(set(schedules))
        await settle()
        try:
            yield World(wall, scheduler, calls)
        finally:
            scheduler.close()


async def test_each_schedule_fires_at_once_and_then_by_itself():
    """Schedules that fire at the same time are passed in one call."""
    async with running(*BOTH) as world:
        assert world.calls == [BOTH]
        assert world.scheduler.next_starts == {FIVE: NOON + 5 * MINUTE, HOURLY: NOON + HOUR}
        assert await world.at(NOON + 4 * MINUTE) == []
        assert await world.at(NOON + 5 * MINUTE) == [{FIVE}]
        assert await world.at(NOON + 5 * MINUTE) == []
        assert await world.at(NOON + 9 * MINUTE) == []
        assert await world.at(NOON + HOUR) == [BOTH]


async def test_apscheduler_fires_in_real_time():
    """Without a check in between, starts come from APScheduler alone."""
    calls = 0
    three = asyncio.Event()

    def due(_schedules: set[Schedule]) -> None:
        nonlocal calls
        calls += 1
        if calls >= 3:
            three.set()

    scheduler = Scheduler(due)
    scheduler.start({Schedule(every=timedelta(milliseconds=20))})
    async with asyncio.timeout(30):
        await three.wait()
    scheduler.close()
    assert calls >= 3


async def test_the_check_repeats_by_itself():
    """A start that APScheduler's timer would miss comes with the next check."""
    again = asyncio.Event()
    with time_machine.travel(NOON, tick=False) as wall:
        scheduler = Scheduler(lambda _schedules: again.set(), check_seconds=0.001)
        scheduler.start({FIVE})
        await settle()
        again.clear()
        wall.move_to(NOON + 5 * MINUTE)
        async with asyncio.timeout(30):
            await again.wait()
        scheduler.close()


@pytest.mark.parametrize("schedule", [FIVE, CRONTAB])
async def test_after_a_long_sleep_there_is_one_start(schedule: Schedule):
    """Eight hours of suspend are one start, and the log says how late it was."""
    with capture_logs() as logs:
        async with running(schedule) as world:
            expected = world.scheduler.next_starts[schedule]
            woken = NOON + 8 * HOUR + 2 * MINUTE
            assert await world.at(woken) == [{schedule}]
            assert await world.at(woken) == []
            assert woken < world.scheduler.next_starts[schedule] <= woken + 5 * MINUTE
    late = round((woken - expected).total_seconds())
    assert [(log["event"], log["seconds"]) for log in logs] == [("schedule.late", late)]


async def test_after_a_long_sleep_jitter_makes_at_most_one_more_start():
    """APScheduler draws the jitter of the next start again, so that start may be due already. The one after it is not."""
    schedule = Schedule(every=5 * MINUTE, jitter=4 * MINUTE)
    async with running(schedule) as world:
        for sleep in range(1, 50):
            woken = NOON + sleep * 8 * HOUR
            assert await world.at(woken) in ([{schedule}], [{schedule}, {schedule}])
            assert await world.at(woken) == []
            assert woken < world.scheduler.next_starts[schedule] <= woken + 5 * MINUTE + schedule.jitter


@pytest.mark.parametrize("back", [MINUTE, HOUR, 400 * 24 * HOUR])
async def test_a_clock_that_was_set_back_starts_an_interval_at_once(back: timedelta):
    """The time since the last start is unknown, so the schedule counts as overdue."""
    async with running(FIVE) as world:
        assert await world.at(NOON - back) == [{FIVE}]
        assert world.scheduler.next_starts == {FIVE: NOON - back + 5 * MINUTE}


async def test_a_corrected_clock_starts_nothing():
    """A step back of seconds neither starts a run nor repeats the time of a crontab."""
    async with running(FIVE, CRONTAB) as world:
        assert await world.at(NOON - timedelta(seconds=5)) == []
        assert set(world.scheduler.next_starts.values()) == {NOON + 5 * MINUTE}


async def test_a_frequent_schedule_does_not_wait_for_a_corrected_clock():
    """A step back longer than its interval counts as overdue."""
    quick = Schedule(every=timedelta(seconds=2))
    async with running(quick) as world:
        assert await world.at(NOON - timedelta(seconds=5)) == [{quick}]


async def test_a_crontab_goes_by_a_clock_that_was_set_back():
    """The wall clock says 9, so the next time is the next after 9, not after the last start at 12."""
    async with running(CRONTAB) as world:
        assert await world.at(NOON - 3 * HOUR + MINUTE) == []
        assert world.scheduler.next_starts == {CRONTAB: NOON - 3 * HOUR + 5 * MINUTE}


@example([timedelta(seconds=-59)] * 2)
@given(st.lists(st.timedeltas(min_value=timedelta(minutes=-30), max_value=timedelta(hours=3)), max_size=20))
async def test_no_course_of_the_clock_makes_a_storm_or_a_silence(steps: list[timedelta]):
    """However the clock moves, a check starts a group once, and its next start is at most an interval away."""
    async with running(FIVE, CRONTAB) as world:
        now = NOON
        for step in steps:
            now += step
            fired = [schedule for call in await world.at(now) for schedule in call]
            assert len(fired) == len(set(fired))
            for start in world.scheduler.next_starts.values():
                assert now < start <= now + 5 * MINUTE + MINUTE


async def test_trigger_now_fires_all_and_moves_no_fire_time():
    """SIGUSR1 adds a start and takes none away."""
    async with running(*BOTH) as world:
        await world.at(NOON + 2 * MINUTE)
        world.scheduler.trigger_now()
        await settle()
        assert world.calls == [BOTH]
        assert world.scheduler.next_starts[FIVE] == NOON + 5 * MINUTE


async def test_a_reload_starts_only_what_is_new():
    """A schedule that stays keeps its fire times."""
    new = Schedule(every=7 * MINUTE)
    async with running(*BOTH) as world:
        await world.at(NOON + MINUTE)
        world.scheduler.replace({FIVE, new})
        await settle()
        assert world.calls == [{new}]
        assert world.scheduler.next_starts == {FIVE: NOON + 5 * MINUTE, new: NOON + 8 * MINUTE}
        assert await world.at(NOON + 5 * MINUTE) == [{FIVE}]
        world.scheduler.replace(set())
        assert world.scheduler.next_starts == {}


async def test_a_schedule_that_a_reload_removed_is_not_started():
    """Also where it has fired in the same moment."""
    async with running(*BOTH) as world:
        world.calls.clear()
        world.scheduler.trigger_now()
        world.scheduler.replace({HOURLY})
        await settle()
        assert world.calls == [{HOURLY}]


async def test_a_closed_scheduler_starts_nothing():
    """Also if a schedule has fired in the same moment; to close it again does nothing."""
    async with running(*BOTH) as world:
        world.calls.clear()
        world.scheduler.trigger_now()
        world.scheduler.close()
        world.scheduler.trigger_now()
        world.scheduler.replace({CRONTAB})
        await settle()
        assert world.calls == []


async def test_an_error_at_a_start_does_not_stop_the_clock():
    """Only its type is logged, and the next start happens."""

    def fail(_schedules: set[Schedule]) -> None:
        raise ValueError("this text could be anything")

    with capture_logs() as logs:
        async with running(FIVE, due=fail) as world:
            assert await world.at(NOON + 5 * MINUTE) == [{FIVE}]
    assert logs == [{"event": "schedule.failed", "exception": "ValueError", "log_level": "error"}] * 2


async def test_a_crontab_that_never_comes_starts_once():
    """30 February has no next start."""
    async with running(Schedule(cron="0 0 30 2 *")) as world:
        assert len(world.calls) == 1
        assert world.scheduler.next_starts == {}
        assert await world.at(NOON - HOUR) == []


async def test_a_day_of_a_crontab_is_a_day_of_its_zone():
    """APScheduler computes the start from the trigger."""
    office = Schedule(cron="0 9 * * 1-5", timezone="Asia/Tokyo")
    async with running(office) as world:
        start = world.scheduler.next_starts[office].astimezone(ZoneInfo("Asia/Tokyo"))
    assert (start.hour, start.weekday()) == (9, 1)


@given(st.sampled_from([FIVE.every, HOUR]), st.timedeltas(min_value=timedelta(0), max_value=timedelta(hours=2)))
def test_jitter_of_an_interval_is_at_most_the_interval(every: timedelta, jitter: timedelta):
    """A start comes at its fire time or at most `jitter` later."""
    start = trigger_of(Schedule(every=every, jitter=jitter)).get_next_fire_time(NOON, NOON)
    assert start is not None
    assert NOON + every <= start <= NOON + every + min(jitter, every)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(hours=2)), st.integers(0, 10_000))
def test_jitter_of_a_crontab_does_not_pass_the_next_fire_time(jitter: timedelta, minutes: int):
    """A start lies between its fire time and the one after it."""
    schedule = Schedule(cron="0 9-17 * * mon-fri", timezone="Asia/Tokyo", jitter=jitter)
    now = NOON + minutes * MINUTE
    start, first, second = (
        CrontabTrigger(schedule).get_next_fire_time(None, now),
        following(schedule, now),
        following(schedule, now, 2),
    )
    assert start is not None
    assert first is not None
    assert second is not None
    assert first <= start <= min(first + jitter, second)


def test_jitter_spreads():
    """Starts are drawn over the whole of the jitter."""
    trigger = trigger_of(Schedule(cron="0 * * * *", jitter=30 * MINUTE))
    starts = [trigger.get_next_fire_time(None, NOON) or NOON for _ in range(200)]
    assert {(start - NOON - HOUR) // (10 * MINUTE) for start in starts} == {0, 1, 2}
