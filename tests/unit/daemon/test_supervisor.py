"""Runs start on time for free accounts, and a run that hangs, fails or crashes does not affect the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from keysync.config.model import Account, Schedule
from keysync.daemon.account_state import AccountStates
from keysync.daemon.backoff import BOUND
from keysync.daemon.health import Health, Instant
from keysync.daemon.supervisor import Supervisor
from keysync.failures import CallFailed, CloudError, FailureRecord
from keysync.report.metrics import Metrics
from tests.support.memory_generation import MemoryGeneration, config_of, turns, until
from tests.support.runs import World, outcomes
from tests.support.virtual_clock import seeded

FIVE = Schedule(every=timedelta(minutes=5))
DENIED = CallFailed(FailureRecord("cloud_error", "no role", 403, CloudError("AuthorizationFailed", "no")))


class Stage:
    """A supervisor over accounts in memory; `clock` is its monotonic time in seconds."""

    def __init__(self, *names: str) -> None:
        self.world = World(*names)
        self.clock = 1000.0
        self.account_states = AccountStates(lambda: self.world.now)
        self.health = Health([FIVE], Instant.now())
        self.generation = self.make(*names)
        self.stop = self.world.stop
        self.leads = True
        self.supervisor = Supervisor(
            self.generation,
            self.account_states,
            self.health,
            Metrics(CollectorRegistry()),
            may_begin=lambda: self.leads and not self.stop.is_set(),
            random=seeded(),
            monotonic=lambda: self.clock,
        )

    def make(self, *names: str) -> MemoryGeneration:
        """Another configuration of the same world."""
        return MemoryGeneration(self.world, config_of(*names), self.account_states)

    def due(self) -> None:
        """Fires all triggers."""
        self.supervisor.due(self.supervisor.runtime.accounts)

    async def idle(self) -> None:
        """Waits until no run is under way."""
        await until(lambda: not self.supervisor._runs)

    async def passed(self) -> None:
        """One start, to its end."""
        self.due()
        await self.idle()

    def account(self, name: str) -> Account:
        return next(one for one in self.generation.accounts if one.name == name)

    def retry_at(self, name: str) -> float | None:
        """The monotonic time at which an account may run again; None if it is not backing off."""
        retry_at: float = self.entry(name).backoff.retry_at
        return retry_at if retry_at > self.clock else None

    def entry(self, name: str) -> Any:
        return self.account_states.entries[self.account(name).resource_id.lower()]

    def hang(self, name: str) -> None:
        self.world.sources[name].hang()

    def let_go(self, name: str) -> None:
        gate = self.world.sources[name].gate
        assert gate is not None
        gate.set()
        self.world.sources[name].gate = None


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """Two accounts. Active runs are cancelled at the end of the test."""
    made = Stage("fine", "slow")
    yield made
    await made.supervisor.end_runs(0)
    await made.supervisor.close()


async def test_a_start_makes_one_run_over_all_that_are_due(stage: Stage):
    """Every account is in sync after it, and the next run finds nothing to do."""
    await stage.passed()
    await stage.passed()
    assert stage.generation.made == [(("fine", "slow"), 0)] * 2
    assert {name: stage.entry(name).status.state in {"changed", "in_sync"} for name in ("fine", "slow")} == {
        "fine": True,
        "slow": True,
    }
    assert stage.world.log.count("write fine-primary-key") == 1


async def test_two_starts_at_the_same_moment_make_one_run(stage: Stage):
    """Not even the turn of the loop in which a run begins is a gap for another."""
    stage.due()
    stage.due()
    await stage.idle()
    assert stage.generation.made == [(("fine", "slow"), 0)]


async def test_a_hung_account_is_skipped_and_counted_and_the_others_go_on(stage: Stage):
    """No account is in two runs at a time, and none waits for the one that hangs."""
    await stage.passed()
    stage.hang("slow")
    stage.due()
    await until(lambda: not stage.entry("fine").due)
    assert stage.entry("slow").due
    stage.world.sources["fine"].values["primary"] = stage.world.sources["slow"].values["primary"]
    stage.due()
    await until(lambda: not stage.entry("fine").due)
    assert stage.world.log.count("write fine-primary-key") == 2
    stage.due()
    await turns()
    assert stage.generation.made == [(("fine", "slow"), 0)] * 2 + [(("fine",), 1)] * 2
    calls = stage.world.sources["slow"].calls
    stage.let_go("slow")
    await stage.idle()
    assert stage.world.sources["slow"].calls == calls
    await stage.passed()
    assert stage.generation.made[-1] == (("fine", "slow"), 0)


async def test_with_all_accounts_busy_no_run_begins_and_the_daemon_is_alive(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    """The log has the numbers, and the health check counts it as a start."""
    for name in ("fine", "slow"):
        stage.hang(name)
    stage.due()
    await turns()
    heard: list[Instant] = []
    monkeypatch.setattr(stage.health, "note_start", heard.append)
    with capture_logs() as logged:
        stage.due()
    assert [(one["event"], one["busy"], one["backing_off"]) for one in logged] == [("run.skipped", 2, 0)]
    assert len(heard) == 1
    assert len(stage.generation.made) == 1
    for name in ("fine", "slow"):
        stage.let_go(name)


async def test_an_account_that_keeps_failing_backs_off(stage: Stage):
    """Never before its time, never for longer than the bound, and at once on request."""
    stage.world.sources["slow"].failure = DENIED
    longest = BOUND * 300.0
    for _ in range(12):
        await stage.passed()
        retry_at = stage.retry_at("slow")
        if retry_at is not None:
            break
    assert retry_at is not None
    assert stage.clock < retry_at <= stage.clock + longest + 1e-6
    assert stage.retry_at("fine") is None
    stage.generation.made.clear()
    await stage.passed()
    stage.clock = retry_at + 1e-6
    assert stage.retry_at("slow") is None
    await stage.passed()
    assert stage.generation.made == [(("fine",), 0), (("fine", "slow"), 0)]


async def test_a_request_tries_all_accounts_at_once(stage: Stage):
    """SIGUSR1 and a reload; the first success ends the leaving out for good."""
    stage.world.sources["slow"].failure = DENIED
    while stage.retry_at("slow") is None:
        await stage.passed()
    stage.supervisor.sync_now()
    assert stage.retry_at("slow") is None
    stage.world.sources["slow"].failure = None
    await stage.passed()
    assert stage.generation.made[-1] == (("fine", "slow"), 0)
    assert stage.entry("slow").status.state == "changed"
    stage.world.sources["slow"].failure = DENIED
    await stage.passed()
    assert stage.retry_at("slow") is None


async def test_an_account_that_is_busy_at_a_request_gets_one_more_run(stage: Stage):
    """The active run may have read the account before the change. It gets one more run, however often it was requested."""
    await stage.passed()
    stage.hang("slow")
    stage.due()
    await until(lambda: not stage.entry("fine").due)
    for _ in range(3):
        stage.supervisor.sync_now()
        stage.due()
        await until(lambda: not stage.entry("fine").due)
    stage.generation.made.clear()
    stage.let_go("slow")
    await stage.idle()
    await turns()
    await stage.idle()
    assert stage.generation.made == [(("slow",), 0)]
    await turns()
    assert stage.generation.made == [(("slow",), 0)]


async def test_a_free_account_does_not_wait_for_a_hanging_one(stage: Stage):
    """Nor for the end of the run in which both were."""
    await stage.passed()
    for name in ("fine", "slow"):
        stage.hang(name)
    stage.generation.run_options["collect_seconds"] = 0.05
    stage.due()
    stage.supervisor.sync_now()
    stage.let_go("fine")
    await until(lambda: stage.generation.made[-1] == (("fine",), 0))
    assert stage.entry("slow").due
    stage.let_go("slow")
    await until(lambda: stage.generation.made[-1] == (("slow",), 0))


async def test_nothing_is_requeued_after_a_crash_a_reload_or_the_stop(stage: Stage):
    """A crash frees as an end does; an account that is gone is owed nothing, and the stop ends all."""
    stage.generation.breaks = RuntimeError("a bug")
    stage.due()
    stage.supervisor.sync_now()
    await stage.idle()
    await turns()
    await stage.idle()
    assert stage.generation.made == [(("fine", "slow"), 0)] * 2
    stage.hang("slow")
    stage.due()
    stage.supervisor.sync_now()
    other = stage.make("fine")
    stage.supervisor.replace(other)
    stage.let_go("slow")
    await stage.idle()
    await turns()
    await stage.idle()
    assert other.made == [(("fine",), 0)]
    stage.due()
    stage.supervisor.sync_now()
    stage.stop.set()
    await stage.supervisor.end_runs()
    await stage.supervisor.close()
    await turns()
    assert other.made == [(("fine",), 0)] * 2


async def test_a_run_that_crashes_frees_its_accounts_and_shows_no_value(stage: Stage):
    """A bug is logged by type and place. The next run is not affected."""
    await stage.passed()
    secret = stage.world.sources["fine"].values["primary"]
    stage.generation.breaks = RuntimeError(secret)
    with capture_logs() as logged:
        await stage.passed()
    crash = next(one for one in logged if one["event"] == "run.error")
    assert (crash["exception"], crash["log_level"]) == ("RuntimeError", "error")
    assert crash["place"].startswith("memory_generation.py:")
    assert secret not in repr(logged)
    assert not any(entry.due for entry in stage.account_states.entries.values())
    await stage.passed()
    assert stage.generation.made[-1] == (("fine", "slow"), 0)
    assert all(entry.status.state in {"changed", "in_sync"} for entry in stage.account_states.entries.values())


async def test_the_configuration_before_is_closed_when_its_last_run_has_ended(stage: Stage):
    """Runs of the new one do not wait for that."""
    stage.hang("slow")
    stage.due()
    await until(lambda: not stage.entry("fine").due)
    other = stage.make("fine", "slow")
    stage.supervisor.replace(other)
    await turns()
    assert stage.generation.closed == 0
    stage.due()
    await until(lambda: len(stage.supervisor._runs) == 1)
    assert other.made == [(("fine",), 1)]
    runs_at_close: list[int] = []
    stage.generation.on_close = lambda: runs_at_close.append(len(stage.supervisor._runs))
    stage.let_go("slow")
    await until(lambda: stage.generation.closed == 1)
    assert runs_at_close == [0]
    assert other.closed == 0
    await stage.supervisor.end_runs()
    await stage.supervisor.close()
    assert (stage.generation.closed, other.closed) == (1, 1)


async def test_a_reload_forgets_how_often_removed_accounts_failed(stage: Stage):
    """An account that comes back begins from nothing."""
    stage.world.sources["slow"].failure = DENIED
    await stage.passed()
    stage.supervisor.replace(stage.make("fine"))
    stage.supervisor.replace(stage.make("fine", "slow"))
    await stage.passed()
    assert stage.retry_at("slow") is None
    await turns()


async def test_the_end_waits_for_the_runs_under_way(stage: Stage):
    """Nothing begins any more, and an account that hangs ends with the stop."""
    await stage.passed()
    stage.hang("slow")
    stage.due()
    await until(lambda: not stage.entry("fine").due)
    stage.stop.set()
    stage.due()
    await stage.supervisor.end_runs()
    await stage.supervisor.close()
    assert len(stage.generation.made) == 2
    assert not stage.supervisor._runs
    assert stage.generation.closed == 1


async def test_a_write_under_way_finishes_before_the_end(stage: Stage):
    """It is written once, and its result is in the books."""
    began = asyncio.Event()
    stage.world.vault.on_write = began.set
    stage.due()
    await began.wait()
    stage.stop.set()
    await stage.supervisor.end_runs()
    await stage.supervisor.close()
    written = [name for name in stage.world.vault.history_of if stage.world.vault.history_of[name]]
    assert written
    assert {record.result.ref.secret for record in stage.account_states.writes} == set(written)
    assert all(len(versions) == 1 for versions in stage.world.vault.history_of.values())


async def test_after_the_deadline_everything_is_closed_at_once(stage: Stage):
    """Also the configuration before, whose run still hung."""
    stage.hang("slow")
    stage.due()
    await until(lambda: not stage.entry("fine").due)
    other = stage.make("fine", "slow")
    stage.supervisor.replace(other)
    await turns()
    await stage.supervisor.end_runs(0)
    await stage.supervisor.close()
    assert not stage.supervisor._runs
    assert stage.generation.closed == 1
    assert other.closed >= 1
    assert not any(entry.due for entry in stage.account_states.entries.values())


async def test_results_reach_the_observer_as_they_come(stage: Stage):
    """The supervisor adds nothing and takes nothing away."""
    await stage.passed()
    found = {
        result.ref.secret: result for entry in stage.account_states.entries.values() for result in entry.status.results
    }
    assert outcomes(list(found.values())) == dict.fromkeys(
        [f"{name}-{key}-key" for name in ("fine", "slow") for key in ("primary", "secondary")], "created"
    )


async def test_a_standby_begins_no_run_and_is_alive(stage: Stage):
    """Neither when it is due, nor for what was found, nor for who is owed one."""
    stage.hang("slow")
    stage.due()
    await until(lambda: stage.entry("fine").status.last_attempt is not None)
    stage.supervisor.sync_now()
    stage.leads = False
    with capture_logs() as log:
        stage.let_go("slow")
        await stage.idle()
        await turns()
        stage.due()
        stage.supervisor.begin(stage.generation.accounts)
        await turns()
    assert len(stage.generation.made) == 1
    assert not stage.supervisor._runs
    assert [line for line in log if line["event"] == "run.skipped"] == []
    assert stage.health.failure(Instant.now()) is None
    stage.leads = True
    await stage.passed()
    assert len(stage.generation.made) == 2


async def test_runs_of_a_lost_term_are_ended_when_their_time_is_over(stage: Stage):
    """Runs may end by themselves; a hanging run is cancelled, and its accounts are free."""
    stage.hang("slow")
    stage.due()
    await turns()
    assert not stage.account_states.free([stage.account("slow")])
    await stage.supervisor.end_runs(0.0)
    assert not stage.supervisor._runs
    assert len(stage.account_states.free(stage.generation.accounts)) == 2


async def test_a_run_that_ends_in_time_is_not_cut_off(stage: Stage):
    """Its report is whole."""
    stage.due()
    await stage.supervisor.end_runs(20.0)
    assert stage.account_states.last_run is not None
    assert stage.account_states.last_run.result == "success"
