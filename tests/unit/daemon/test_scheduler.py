"""The scheduler reports each due group once, and never blocks its callee."""

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
    """A clock that does not move until it is set."""

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
    """One group for each distinct schedule, in order of first appearance."""
    five, hour = Schedule(every=5 * MINUTE), Schedule(cron="0 * * * *")
    schedules = {"a": five, "b": hour, "c": Schedule(every=5 * MINUTE)}
    assert group_by_schedule("abc", schedules.__getitem__) == (
        Group(Trigger(5 * MINUTE), ("a", "c")),
        Group(Trigger(None, timedelta(0), "0 * * * *"), ("b",)),
    )


async def test_everything_starts_at_once_then_by_its_own_timetable():
    """Groups that are due at the same time are passed in one call."""
    calls: LeaderCallbacks = []
    wall = Wall()
    async with running(calls.append, wall) as scheduler:
        assert calls == [BOTH]
        assert scheduler.next_starts[FAST.trigger] == NOON + 5 * MINUTE
        for minutes in (4, 5, 5, 9, 60):
            wall.now = NOON + minutes * MINUTE
            scheduler.check_due()
            await settle()
    assert calls == [BOTH, (FAST,), BOTH]


@pytest.mark.parametrize("every", [timedelta(milliseconds=20), timedelta(microseconds=1)])
async def test_apscheduler_fires_in_real_time(every: timedelta):
    """Without checks in between, starts come from APScheduler alone, even if the next is due while its job runs."""
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
    """APScheduler's next job is hours away by the new clock; the regular check is not."""
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


async def test_a_late_job_of_apscheduler_still_runs():
    """APScheduler skips a start that is a second late by default, and there is one job only."""
    async with running(lambda groups: None, Wall()) as scheduler:
        scheduler.check_due()
        alarms = scheduler._scheduler.get_jobs()
    assert [(alarm.misfire_grace_time, alarm.coalesce, alarm.max_instances) for alarm in alarms] == [(None, True, 1)]


async def test_a_long_stall_is_one_start_and_is_logged():
    """A late start is made up for once, and the log says how late it was."""
    calls: LeaderCallbacks = []
    wall = Wall()
    with capture_logs() as logs:
        async with running(calls.append, wall, FAST) as scheduler:
            wall.now = NOON + timedelta(hours=8)
            scheduler.check_due()
            await settle()
            scheduler.check_due()
            await settle()
    assert calls == [(FAST,), (FAST,)]
    assert [(log["event"], log["seconds"]) for log in logs] == [("schedule.late", 8 * 3600 - 300)]


async def test_groups_that_become_due_during_a_call_are_coalesced():
    """A slow callee gets no second call on top of the first, loses nothing, and gets no backlog."""
    calls: LeaderCallbacks = []
    wall, gate = Wall(), asyncio.Event()

    async def due(groups: tuple[Group[str], ...]) -> None:
        calls.append(groups)
        await gate.wait()

    async with running(due, wall) as scheduler:
        for minutes in (5, 10, 15):
            wall.now = NOON + minutes * MINUTE
            scheduler.check_due()
            await settle()
        assert calls == [BOTH]
        gate.set()
        await settle()
        assert calls == [BOTH, (FAST,)]


async def test_trigger_now_fires_all_and_moves_no_fire_time():
    """SIGUSR1 adds a start and takes none away."""
    calls: LeaderCallbacks = []
    wall = Wall()
    async with running(calls.append, wall) as scheduler:
        wall.now = NOON + 2 * MINUTE
        scheduler.trigger_now()
        await settle()
        assert calls == [BOTH, BOTH]
        assert scheduler.next_starts[FAST.trigger] == NOON + 5 * MINUTE


async def test_a_reload_starts_only_what_is_new():
    """A group that keeps its trigger keeps its fire times, with its new members."""
    calls: LeaderCallbacks = []
    wall = Wall()
    more, new = Group(FAST.trigger, ("a", "z")), Group(Trigger(7 * MINUTE), ("n",))
    async with running(calls.append, wall) as scheduler:
        wall.now = NOON + MINUTE
        scheduler.replace([more, new])
        await settle()
        wall.now = NOON + 5 * MINUTE
        scheduler.check_due()
        await settle()
        assert calls == [BOTH, (new,), (more,)]
        scheduler.replace([])
        assert scheduler.next_starts == {}


async def test_a_waiting_group_that_a_reload_removed_is_not_passed():
    """A group that was removed while it waited is not passed."""
    calls: LeaderCallbacks = []
    wall, gate = Wall(), asyncio.Event()

    async def due(groups: tuple[Group[str], ...]) -> None:
        calls.append(groups)
        await gate.wait()

    async with running(due, wall) as scheduler:
        scheduler.trigger_now()
        scheduler.replace([SLOW])
        gate.set()
        await settle()
        assert calls == [BOTH, (SLOW,)]


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
    """Only its type is logged, and the next start happens."""
    calls: LeaderCallbacks = []
    wall = Wall()

    def due(groups: tuple[Group[str], ...]) -> None:
        calls.append(groups)
        raise ValueError("this text could be anything")

    with capture_logs() as logs:
        async with running(due, wall, FAST) as scheduler:
            wall.now = NOON + 5 * MINUTE
            scheduler.check_due()
            await settle()
    assert calls == [(FAST,), (FAST,)]
    assert logs == [{"event": "schedule.failed", "exception": "ValueError", "log_level": "error"}] * 2


async def test_a_clock_that_cannot_be_read_is_logged_and_read_again():
    """No error in a check ends the checks."""
    calls: LeaderCallbacks = []
    broken = True

    def now() -> datetime:
        if broken:
            raise OSError
        return NOON

    scheduler = Scheduler([], calls.append, now=lambda: NOON, check_every=timedelta(milliseconds=1))
    scheduler._now = now
    with capture_logs() as logs:
        scheduler.start()
        await settle()
        broken = False
        scheduler.replace([FAST])
        await settle()
        await scheduler.close()
    assert calls == [(FAST,)]
    assert {log["exception"] for log in logs} == {"OSError"}
