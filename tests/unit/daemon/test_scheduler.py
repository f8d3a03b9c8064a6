"""The clockwork tells what is due, once, and never gets in anybody's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from keysync.config.settings import Schedule
from keysync.daemon.scheduler import Group, Scheduler, group_by_schedule
from keysync.daemon.triggers import Trigger
from tests.support.virtual_clock import seeded

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FAST, SLOW = Group(Trigger(5 * MINUTE), ("a", "b")), Group(Trigger(60 * MINUTE), ("c",))
BOTH = (FAST, SLOW)

LeaderCallbacks = list[tuple[Group[str], ...]]


class Wall:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def running(due: Callable[..., Any], wall: Wall, *groups: Group[str]) -> AsyncIterator[Scheduler[str]]:
    scheduler = Scheduler(groups or BOTH, due, now=wall, random=seeded())
    scheduler.start()
    await settle()
    try:
        yield scheduler
    finally:
        await scheduler.close()


def test_accounts_with_the_same_schedule_start_together():
    """One timetable for each schedule that differs, in the order in which they come."""
    five, hour = Schedule(every=5 * MINUTE), Schedule(cron="0 * * * *")
    schedules = {"a": five, "b": hour, "c": Schedule(every=5 * MINUTE)}
    assert group_by_schedule("abc", schedules.__getitem__) == (
        Group(Trigger(5 * MINUTE), ("a", "c")),
        Group(Trigger(None, timedelta(0), "0 * * * *"), ("b",)),
    )


async def test_everything_starts_at_once_then_by_its_own_timetable():
    """What is due at one moment is told in one call."""
    told: LeaderCallbacks = []
    wall = Wall()
    async with running(told.append, wall) as scheduler:
        assert told == [BOTH]
        assert scheduler.next_starts[FAST.trigger] == NOON + 5 * MINUTE
        for minutes in (4, 5, 5, 9, 60):
            wall.now = NOON + minutes * MINUTE
            scheduler.check_due()
            await settle()
    assert told == [BOTH, (FAST,), BOTH]


@pytest.mark.parametrize("every", [timedelta(milliseconds=20), timedelta(microseconds=1)])
async def test_the_alarm_of_apscheduler_rings_in_real_time(every: timedelta):
    """With nobody looking in between, starts come by the alarm alone, also where the next is due while it rings."""
    calls = 0
    three = asyncio.Event()

    async def due(groups: tuple[Group[str], ...]) -> None:
        nonlocal calls
        calls += 1
        if calls >= 3:
            three.set()

    quick = Group(Trigger(every), ("a",))
    scheduler = Scheduler([quick], due, check_every=timedelta(hours=1))
    scheduler.start()
    async with asyncio.timeout(30):
        await three.wait()
    await scheduler.close()
    assert calls >= 3


async def test_it_looks_again_by_itself_although_the_clock_was_set_back():
    """The alarm that APScheduler holds is hours away by the new clock, as if paused; the look is not."""
    wall, again = Wall(), asyncio.Event()

    def due(groups: tuple[Group[str], ...]) -> None:
        if wall.now < NOON:
            again.set()

    scheduler = Scheduler([FAST], due, now=wall, check_every=timedelta(milliseconds=1))
    scheduler.start()
    await settle()
    scheduler._scheduler.pause()
    wall.now = NOON - timedelta(hours=3)
    async with asyncio.timeout(30):
        await again.wait()
    assert scheduler.next_starts[FAST.trigger] == wall.now + 5 * MINUTE
    await scheduler.close()


async def test_an_alarm_that_is_late_rings_all_the_same():
    """APScheduler leaves out what is a second late unless it is told not to; and there is one alarm only."""
    async with running(lambda groups: None, Wall()) as scheduler:
        scheduler.check_due()
        alarms = scheduler._scheduler.get_jobs()
    assert [(alarm.misfire_grace_time, alarm.coalesce, alarm.max_instances) for alarm in alarms] == [(None, True, 1)]


async def test_a_long_stall_is_one_start_and_is_told():
    """A late start is made up for once, and the log says how late it was."""
    told: LeaderCallbacks = []
    wall = Wall()
    with capture_logs() as logs:
        async with running(told.append, wall, FAST) as scheduler:
            wall.now = NOON + timedelta(hours=8)
            scheduler.check_due()
            await settle()
            scheduler.check_due()
            await settle()
    assert told == [(FAST,), (FAST,)]
    assert [(log["event"], log["seconds"]) for log in logs] == [("schedule.late", 8 * 3600 - 300)]


async def test_what_falls_due_meanwhile_is_told_once_afterwards():
    """A slow callee gets no second call on top of the first, loses nothing, and gets no backlog."""
    told: LeaderCallbacks = []
    wall, gate = Wall(), asyncio.Event()

    async def due(groups: tuple[Group[str], ...]) -> None:
        told.append(groups)
        await gate.wait()

    async with running(due, wall) as scheduler:
        for minutes in (5, 10, 15):
            wall.now = NOON + minutes * MINUTE
            scheduler.check_due()
            await settle()
        assert told == [BOTH]
        gate.set()
        await settle()
        assert told == [BOTH, (FAST,)]


async def test_trigger_now_tells_all_and_moves_no_grid():
    """SIGUSR1 adds a start and takes none away."""
    told: LeaderCallbacks = []
    wall = Wall()
    async with running(told.append, wall) as scheduler:
        wall.now = NOON + 2 * MINUTE
        scheduler.trigger_now()
        await settle()
        assert told == [BOTH, BOTH]
        assert scheduler.next_starts[FAST.trigger] == NOON + 5 * MINUTE


async def test_a_reload_starts_only_what_is_new():
    """A group that keeps its timetable keeps its grid, with the members that it has now."""
    told: LeaderCallbacks = []
    wall = Wall()
    more, new = Group(FAST.trigger, ("a", "z")), Group(Trigger(7 * MINUTE), ("n",))
    async with running(told.append, wall) as scheduler:
        wall.now = NOON + MINUTE
        scheduler.replace([more, new])
        await settle()
        wall.now = NOON + 5 * MINUTE
        scheduler.check_due()
        await settle()
        assert told == [BOTH, (new,), (more,)]
        scheduler.replace([])
        assert scheduler.next_starts == {}


async def test_what_was_waiting_and_is_gone_after_a_reload_is_not_told():
    """A group that was taken out while it waited to be told is not told."""
    told: LeaderCallbacks = []
    wall, gate = Wall(), asyncio.Event()

    async def due(groups: tuple[Group[str], ...]) -> None:
        told.append(groups)
        await gate.wait()

    async with running(due, wall) as scheduler:
        scheduler.trigger_now()
        scheduler.replace([SLOW])
        gate.set()
        await settle()
        assert told == [BOTH, (SLOW,)]


async def test_closing_waits_for_the_callee_and_cancels_nothing():
    """The end of the clockwork tears nothing that it has set going, and nothing comes after it."""
    ended: list[str] = []
    wall, gate = Wall(), asyncio.Event()

    async def due(groups: tuple[Group[str], ...]) -> None:
        await gate.wait()
        ended.append("whole")

    scheduler = Scheduler(BOTH, due, now=wall)
    scheduler.start()
    await settle()
    scheduler.trigger_now()
    closing = asyncio.create_task(scheduler.close())
    await settle()
    assert not closing.done()
    gate.set()
    await closing
    scheduler.trigger_now()
    scheduler.replace(BOTH)
    await scheduler.close()
    await settle()
    assert ended == ["whole"]


async def test_closing_that_is_cut_off_does_not_cancel_the_callee():
    """An impatient owner gives up waiting, and the callee goes on."""
    ended: list[str] = []
    gate = asyncio.Event()

    async def due(groups: tuple[Group[str], ...]) -> None:
        await gate.wait()
        ended.append("whole")

    scheduler = Scheduler(BOTH, due, now=Wall())
    scheduler.start()
    await settle()
    closing = asyncio.create_task(scheduler.close())
    await settle()
    closing.cancel()
    await settle()
    gate.set()
    await settle()
    assert closing.cancelled()
    assert ended == ["whole"]


async def test_an_exception_of_the_callee_does_not_stop_the_clock():
    """It is told by its type alone, and the next start comes."""
    told: LeaderCallbacks = []
    wall = Wall()

    def due(groups: tuple[Group[str], ...]) -> None:
        told.append(groups)
        raise ValueError("what stands here could be anything")

    with capture_logs() as logs:
        async with running(due, wall, FAST) as scheduler:
            wall.now = NOON + 5 * MINUTE
            scheduler.check_due()
            await settle()
    assert told == [(FAST,), (FAST,)]
    assert logs == [{"event": "schedule.failed", "exception": "ValueError", "log_level": "error"}] * 2


async def test_a_clock_that_cannot_be_read_is_told_and_tried_again():
    """Nothing that a look meets ends the looking."""
    told: LeaderCallbacks = []
    broken = True

    def now() -> datetime:
        if broken:
            raise OSError
        return NOON

    scheduler = Scheduler([], told.append, now=lambda: NOON, check_every=timedelta(milliseconds=1))
    scheduler._now = now
    with capture_logs() as logs:
        scheduler.start()
        await settle()
        broken = False
        scheduler.replace([FAST])
        await settle()
        await scheduler.close()
    assert told == [(FAST,)]
    assert {log["exception"] for log in logs} == {"OSError"}
