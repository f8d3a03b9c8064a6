"""Alive means that the loop turns and runs start; slow is not dead, and waking up is not either."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from keysync.config.model import Schedule
from keysync.daemon.health import Health, Instant, Watchdog, stack_of

START = Instant(datetime(2026, 6, 5, 12, tzinfo=UTC), 1000.0)  # a Friday
FIVE = Schedule(every=timedelta(minutes=5))
MINUTE, HOUR = 60.0, 3600.0


def later(instant: Instant, seconds: float, *, suspended: float = 0.0) -> Instant:
    """`seconds` later on both clocks, and `suspended` more on the wall's."""
    return Instant(instant.wall + timedelta(seconds=seconds + suspended), instant.monotonic + seconds)


class World:
    def __init__(self, *schedules: Schedule) -> None:
        self.now = START
        self.health = Health(schedules or (FIVE,), START)

    def runs(self, seconds: float) -> str | None:
        """Time goes by with the loop turning; why it is not alive at the end."""
        end = self.now.monotonic + seconds
        while self.now.monotonic < end:
            self.now = later(self.now, min(5.0, end - self.now.monotonic))
            self.health.beat(self.now)
        return self.health.failure(self.now)


def test_a_loop_that_has_not_beaten_is_not_alive():
    """Fifteen seconds are a busy loop, more is a dead task."""
    health = Health((FIVE,), START)
    assert health.failure(later(START, 15)) is None
    assert health.failure(later(START, 16)) == "the loop's own task has not run for 16 s"


def test_three_intervals_without_a_start_are_not_alive():
    """The third start that is missing is what fails."""
    world = World()
    assert world.runs(15 * MINUTE) is None
    assert world.runs(1) == "no run has started for 901 s; three intervals are 900 s"
    world.health.run_started("p", world.now, 60.0)
    world.health.run_ended("p")
    assert world.runs(15 * MINUTE) is None
    assert world.runs(1) is not None


def test_jitter_is_granted():
    """A delay by the schedule itself is not a failure."""
    world = World(Schedule(every=timedelta(minutes=5), jitter=timedelta(minutes=2)))
    assert world.runs(17 * MINUTE) is None
    assert world.runs(1) is not None


def test_the_most_frequent_trigger_counts():
    """A nightly group does not excuse one that runs every five minutes."""
    world = World(Schedule(cron="0 3 * * *"), FIVE)
    assert world.runs(15 * MINUTE) is None
    assert world.runs(1) is not None


def test_a_crontab_is_silent_over_the_weekend():
    """Its own next times are what is waited for, not an average."""
    office = Schedule(cron="0 9,12 * * mon-fri")
    world = World(office)
    until_tuesday = 4 * 24 * HOUR - 3 * HOUR  # Monday at 9, Monday at 12, Tuesday at 9
    assert world.runs(until_tuesday) is None
    assert world.runs(1) is not None


def test_a_crontab_that_never_comes_is_no_failure():
    """Where no run is to start, none is missing."""
    assert World(Schedule(cron="0 0 30 2 *")).runs(HOUR) is None


def test_a_run_that_is_slow_is_alive_until_its_deadline():
    """It is Azure that is slow; beyond its deadline it is keysync."""
    world = World()
    world.health.run_started("p", world.now, 2 * HOUR)
    assert world.runs(2 * HOUR) is None
    assert world.runs(16) == "a run has run for 7216 s; its deadline is 7200 s"
    world.health.run_ended("p")
    world.health.run_ended("p")
    world.health.run_started("q", world.now, 60.0)
    assert world.runs(MINUTE) is None


def test_it_predicts_when_runs_will_count_as_stopped():
    """The time at which the verdict will change; None if no run is going to start."""
    world = World()
    assert world.health.overdue(world.now) == START.wall + timedelta(minutes=15)
    world.runs(MINUTE)
    assert world.health.overdue(world.now) == START.wall + timedelta(minutes=15)
    world.health.run_started("p", world.now, 10 * MINUTE)
    assert world.health.overdue(world.now) == START.wall + timedelta(minutes=11, seconds=15)
    world.health.run_ended("p")
    assert world.health.overdue(world.now) == START.wall + timedelta(minutes=16)
    assert world.runs(15 * MINUTE) is None
    assert world.runs(1) is not None
    assert world.health.overdue(world.now) == world.now.wall - timedelta(seconds=1)
    assert World(Schedule(cron="0 0 30 2 *")).health.overdue(START) is None


def test_a_stuck_run_is_not_hidden_by_others():
    """Starts of one group do not excuse what hangs in another."""
    world = World()
    world.health.run_started("stuck", world.now, MINUTE)
    for _ in range(2):
        world.health.run_started("fine", world.now, MINUTE)
        world.runs(40)
        world.health.run_ended("fine")
    assert "its deadline is 60 s" in (world.health.failure(world.now) or "")


def test_a_suspend_does_not_count():
    """The wall clock has gone on for a night; nothing is late on the monotonic one."""
    world = World()
    world.runs(10 * MINUTE)
    world.now = later(world.now, 1, suspended=8 * HOUR)
    assert world.health.failure(world.now) is None
    assert world.runs(5 * MINUTE - 1) is None
    assert world.runs(1) is not None


def test_after_a_freeze_the_time_frozen_does_not_count():
    """A process that was stopped for an hour finds its runs an hour older, and none of it is their fault."""
    world = World()
    world.health.run_started("p", world.now, 10 * MINUTE)
    world.runs(9 * MINUTE)
    world.now = later(world.now, HOUR)
    assert world.health.failure(world.now) is not None
    world.health.beat(world.now)
    assert world.health.failure(world.now) is None
    world.health.run_ended("p")
    assert world.runs(6 * MINUTE - 15) is None
    assert world.runs(1) is not None


def test_a_clock_that_is_set_has_no_effect():
    """Liveness goes by the monotonic clock."""
    world = World()
    world.now = later(world.now, 1, suspended=-8 * HOUR)
    world.health.beat(world.now)
    assert world.runs(15 * MINUTE - 1) is None
    assert world.runs(1) is not None


def test_a_reload_starts_over():
    """New schedules get their own three intervals, counted from the reload."""
    world = World()
    world.runs(14 * MINUTE)
    world.health.replace([Schedule(every=timedelta(hours=1))], world.now)
    assert world.runs(3 * HOUR) is None
    assert world.runs(1) is not None
    world.health.replace([], world.now)
    assert world.runs(24 * HOUR) is None


class Ticks:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


class Watched:
    """A watchdog whose thread's steps are taken by hand."""

    def __init__(self) -> None:
        self.ticks = Ticks()
        self.dog = Watchdog(stall=10.0, tick=1.0, monotonic=self.ticks)

    def runs(self, seconds: int, *, beating: bool) -> None:
        for _ in range(seconds):
            self.ticks.time += 1.0
            if beating:
                self.dog.beat()
            self.dog.check()


def test_a_stall_is_logged_once_and_its_end_too():
    """One event a stall, however long, and another when the loop turns again."""
    world = Watched()
    with capture_logs() as logs:
        world.runs(60, beating=True)
        world.runs(10, beating=False)
        assert logs == []
        world.runs(100, beating=False)
        assert [(log["event"], log["seconds"]) for log in logs] == [("event_loop.blocked", 11.0)]
        world.runs(5, beating=True)
        world.runs(11, beating=False)
    logged = [(log["event"], log["seconds"]) for log in logs]
    assert logged == [("event_loop.blocked", 11.0), ("event_loop.recovered", 111.0), ("event_loop.blocked", 11.0)]


def test_a_freeze_of_the_whole_process_is_no_stall():
    """The watchdog stood still as well; the loop gets its time to turn again."""
    world = Watched()
    with capture_logs() as logs:
        world.runs(5, beating=True)
        world.ticks.time += 3600.0
        world.dog.check()
        world.runs(10, beating=False)
        assert logs == []
        world.runs(1, beating=False)
    assert [log["event"] for log in logs] == ["event_loop.blocked"]


def test_a_stack_names_places_and_no_values():
    """It contains no variable and no line of source."""
    secret, ready, done = "QUJDREVGRw==", threading.Event(), threading.Event()

    def inner(key: str) -> None:
        ready.set()
        done.wait()
        assert key

    thread = threading.Thread(target=inner, args=(secret,))
    thread.start()
    ready.wait()
    stack = stack_of(thread.ident or 0)
    done.set()
    thread.join()
    assert any(line.endswith(":inner") and __file__ in line for line in stack)
    assert secret not in "".join(stack)
    assert all(len(line.rsplit(":", 2)) == 3 and line.rsplit(":", 2)[1].isdigit() for line in stack)
    assert stack_of(-1) == []


class Recorder:
    """A log that sets an event with each line."""

    def __init__(self) -> None:
        self.stacks: list[list[str]] = []
        self.logged = threading.Event()

    def error(self, event: str, *, seconds: float, stack: list[str]) -> None:
        assert event == "event_loop.blocked"
        self.stacks.append(stack)
        self.logged.set()

    def warning(self, event: str, *, seconds: float) -> None:
        assert event == "event_loop.recovered"


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    dog = Watchdog(stall=0.2, tick=0.01, log=recorder)
    dog.start()
    yield recorder
    dog.close()
    dog.close()
    assert not any(thread.name == "watchdog" for thread in threading.enumerate())


def test_the_thread_tells_where_the_other_one_hangs(recorder: Recorder):
    """This function blocks without a beat, and its name is in the stack."""
    assert recorder.logged.wait(30)
    assert any("test_the_thread_tells_where_the_other_one_hangs" in line for line in recorder.stacks[0])


def test_a_watchdog_that_never_started_can_be_closed():
    """A start-up that fails half way closes what it has."""
    dog = Watchdog()
    dog.close()
    assert not any(thread.name == "watchdog" for thread in threading.enumerate())
