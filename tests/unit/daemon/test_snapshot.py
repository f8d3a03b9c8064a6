"""The snapshot: what the page, the probes and the metrics are made from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from keysync.azure.circuit_breaker import Breakers
from keysync.config.model import Schedule
from keysync.daemon.account_state import AccountStates, schedule_text
from keysync.daemon.health import Health, Instant
from keysync.daemon.leader_election import LeaderElector
from keysync.daemon.snapshot import SnapshotBuilder
from keysync.daemon.supervisor import Supervisor
from keysync.failures import CallFailed, CloudError, FailureRecord
from keysync.report.metrics import Metrics, StatusCollector
from keysync.report.status import AccountStatus, VaultStatus
from keysync.sync.model import Result
from tests.support.leases import NoLease
from tests.support.memory_generation import MemoryGeneration, config_of, until
from tests.support.runs import World, ref
from tests.support.settings import election_of
from tests.support.virtual_clock import seeded

NOW = datetime(2026, 11, 24, 5, 22, tzinfo=UTC)
FIVE = Schedule(every=timedelta(minutes=5))
DOWN = FailureRecord("dns", "no such host")
DENIED = FailureRecord("cloud_error", "no role", 403, CloudError("AuthorizationFailed", "no"))


FORBIDDEN = FailureRecord("http_error", "Kubernetes answered 403 Forbidden", 403)


class Stage:
    """A board over a supervisor with accounts in memory; `clock` holds wall time and monotonic seconds together."""

    def __init__(self, *names: str, vaults: tuple[str, ...] = ("main",), **more: Any) -> None:
        self.seconds = 1000.0
        self.world = World(*names, vaults=vaults)
        self.account_states = AccountStates(lambda: self.instant().wall)
        self.health = Health([FIVE], self.instant())
        self.breakers = Breakers(lambda: self.seconds, seeded())
        self.config = config_of(*names, vaults=vaults, **more)
        self.generation = MemoryGeneration(self.world, self.config, self.account_states)
        self.supervisor = Supervisor(
            self.generation,
            self.account_states,
            self.health,
            Metrics(CollectorRegistry()),
            may_begin=lambda: not self.world.stop.is_set(),
            random=seeded(),
            monotonic=lambda: self.seconds,
        )
        self.starts = {FIVE: NOW + timedelta(seconds=200)}
        self.board = SnapshotBuilder(self.supervisor, self.breakers, lambda: self.starts, NOW, self.instant)

    def instant(self) -> Instant:
        return Instant(NOW + timedelta(seconds=self.seconds - 1000.0), self.seconds)

    def stand_by(self) -> LeaderElector:
        """An election that has not read its Lease yet."""
        election = LeaderElector(NoLease(), election_of(), "me", clock=lambda: self.seconds)
        self.board.election = election
        return election

    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        self.health.beat(self.instant())

    async def passed(self) -> None:
        """One run, to its end."""
        self.supervisor.due(self.config.accounts)
        await until(lambda: not self.supervisor._runs)

    def account(self, name: str) -> AccountStatus:
        return next(one for one in self.board.status().accounts if one.account.name == name)

    def vault(self, name: str = "main") -> VaultStatus:
        return next(one for one in self.board.status().vaults if one.name == name)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage("alpha", "beta")
    yield made
    await made.supervisor.end_runs(0)
    await made.supervisor.close()


async def test_the_snapshot_is_rebuilt_only_after_a_change(stage: Stage):
    """A result, a second gone by, or a word: else it is the same object."""
    first = stage.board.status()
    stage.seconds += 0.9
    assert stage.board.status() is first
    stage.seconds += 0.2
    second = stage.board.status()
    assert second is not first
    assert second.now == NOW + timedelta(seconds=1.1)
    stage.board.config_error = "line 3: unknown key"
    assert stage.board.status() is second
    stage.board.changed()
    assert stage.board.status().config_error == "line 3: unknown key"
    third = stage.board.status()
    await stage.passed()
    assert stage.board.status() is not third
    assert {one.state for one in stage.board.status().accounts} == {"changed"}


async def test_a_clock_that_goes_back_does_not_freeze_the_snapshot(stage: Stage):
    """A cached one from the future is none."""
    first = stage.board.status()
    stage.seconds -= 50
    assert stage.board.status() is not first


async def test_it_is_ready_after_the_first_run_for_good(stage: Stage):
    """An account that comes with a reload does not take readiness away."""
    assert not stage.board.status().ready
    await stage.passed()
    assert stage.board.status().ready
    more = config_of("alpha", "beta", "gamma")
    stage.account_states.cover(more, more.accounts)
    assert stage.account("gamma").state == "pending"
    assert stage.board.status().ready


async def test_it_is_not_ready_while_an_account_was_never_checked(stage: Stage):
    """One that hangs holds readiness up until its deadline, and only its first time."""
    stage.world.sources["beta"].hang()
    stage.supervisor.due(stage.config.accounts)
    await until(lambda: stage.account("alpha").state == "changed")
    assert not stage.board.status().ready
    assert stage.account("beta").busy


async def test_the_schedule_is_shown_as_text_and_by_the_next_start(stage: Stage):
    """The earliest of all triggers; None where no schedule fires again."""
    stage.starts |= {Schedule(every=timedelta(hours=1)): NOW + timedelta(seconds=900)}
    status = stage.board.status()
    assert (status.every, status.next_run) == ("every 5m", NOW + timedelta(seconds=200))
    stage.starts = {}
    stage.board.changed()
    assert stage.board.status().next_run is None


async def test_each_account_has_its_next_try():
    """By its own schedule, and later while it backs off."""
    stage = Stage("alpha", "beta", accounts={"schedule": {"every": "1h"}})
    hourly = Schedule(every=timedelta(hours=1))
    stage.starts = {FIVE: NOW + timedelta(seconds=10), hourly: NOW + timedelta(seconds=20)}
    assert stage.account("alpha").next_try == NOW + timedelta(seconds=20)
    stage.world.sources["beta"].failure = CallFailed(DENIED)
    entry = stage.account_states.entries[stage.config.accounts[1].key]
    while entry.backoff.retry_at <= stage.seconds + 20:
        await stage.passed()
    moment = stage.instant().wall + timedelta(seconds=entry.backoff.retry_at - stage.seconds)
    assert stage.account("beta").next_try == moment
    assert stage.account("alpha").next_try == NOW + timedelta(seconds=20)
    stage.starts[hourly] = moment + timedelta(seconds=1)
    stage.board.changed()
    assert stage.account("beta").next_try == moment + timedelta(seconds=1)
    stage.starts = {}
    stage.board.changed()
    assert stage.account("alpha").next_try is None
    assert stage.account("beta").next_try == moment
    stage.seconds = entry.backoff.retry_at + 1.0
    assert stage.account("beta").next_try is None
    await stage.supervisor.end_runs(0)
    await stage.supervisor.close()


async def test_stale_accounts_are_named(stage: Stage):
    """Accounts that were not in sync for three intervals, by ARM id."""
    stage.world.sources["beta"].failure = CallFailed(DENIED)
    await stage.passed()
    assert stage.board.status().stale_accounts == []
    stage.wait(14 * 60)
    stage.supervisor.sync_now()
    await stage.passed()
    stage.wait(2 * 60)
    status = stage.board.status()
    assert status.stale_accounts == [stage.config.accounts[1].resource_id]
    assert [(one.account.name, one.stale) for one in status.accounts] == [("alpha", False), ("beta", True)]


async def test_a_vault_is_failing_when_all_of_it_fails():
    """One failing secret does not make the vault failing; the error is shown if the whole vault fails."""
    stage = Stage("alpha", "beta", vaults=("main", "other"))
    assert [(one.name, one.state, one.secrets) for one in stage.board.status().vaults] == [
        ("main", "pending", 0),
        ("other", "pending", 0),
    ]
    main = stage.world.vaults["main"]
    main.failures = {f"{name}-{key}-key": CallFailed(DOWN) for name in ("alpha", "beta") for key in ("primary", "secondary")}  # fmt: skip
    await stage.passed()
    failing, well = stage.vault("main"), stage.vault("other")
    assert (failing.state, failing.secrets, failing.out_of_sync) == ("failing", 4, 0)
    assert failing.error == DOWN
    assert (well.state, well.out_of_sync, well.error, well.breaker) == ("ok", 0, None, "closed")
    del main.failures["alpha-primary-key"]
    await stage.passed()
    partly = stage.vault("main")
    assert (partly.state, partly.out_of_sync, partly.error) == ("ok", 0, None)
    await stage.supervisor.end_runs(0)
    await stage.supervisor.close()


async def test_a_vault_is_out_of_sync_by_secrets_that_are_known_to_differ(stage: Stage):
    """A side that did not answer and a write without a known effect are counted apart."""
    results = (
        Result(ref("alpha"), "failed", error=DENIED),
        Result(ref("alpha", "secondary"), "unknown", verdict="stale", error=DENIED),
        Result(ref("beta"), "refused", verdict="unmanaged"),
        Result(ref("beta", "secondary"), "failed", verdict="stale", error=DENIED),
    )
    run_key = stage.account_states.begin([result.ref for result in results])
    for result in results:
        stage.account_states.result("run-1", result)
    stage.account_states.end(run_key)
    status = stage.board.status()
    counts = status.counts()
    assert (stage.vault().out_of_sync, counts["out_of_sync"], counts["unread"]) == (2, 2, 2)
    families = {family.name: family for family in StatusCollector(status).collect()}
    assert [sample.value for sample in families["keysync_vault_secrets_out_of_sync"].samples] == [2]


async def test_a_vault_shows_its_breaker_and_its_next_try(stage: Stage):
    """Open until then, half open from then on, and no trace of it once it is closed."""
    await stage.passed()
    for _ in range(5):
        stage.breakers.failure("vault:main", DOWN)
    stage.board.changed()
    account_status = stage.vault()
    retry_at = stage.breakers.states()["vault:main"].retry_at
    assert retry_at is not None
    assert (account_status.state, account_status.breaker) == ("failing", "open")
    assert account_status.retry_at == NOW + timedelta(seconds=retry_at - stage.seconds)
    stage.wait(200)
    assert (stage.vault().breaker, stage.vault().retry_at) == ("half_open", stage.instant().wall)
    stage.breakers.success("vault:main")
    stage.board.changed()
    assert (stage.vault().state, stage.vault().breaker, stage.vault().retry_at) == ("ok", "closed", None)


async def test_read_only_is_shown_for_all_for_vaults_and_for_accounts():
    """Each at the level at which it was set."""
    stage = Stage("alpha", read_only=True, owner="tokyo")
    await stage.passed()
    status = stage.board.status()
    assert (status.read_only, status.owner) == (True, "tokyo")
    assert stage.vault().state == "read_only"
    assert status.accounts[0].read_only
    await stage.supervisor.end_runs(0)
    await stage.supervisor.close()


async def test_liveness_and_its_reason_are_those_of_the_health_check(stage: Stage):
    """The snapshot only hands them on."""
    assert (stage.board.status().live, stage.board.status().live_reason) == (True, None)
    stage.seconds += 60
    status = stage.board.status()
    assert not status.live
    assert status.live_reason == "the loop's own task has not run for 60 s"


async def test_stop_and_writes_come_from_the_account_states(stage: Stage):
    """Newest first."""
    await stage.passed()
    status = stage.board.status()
    assert status.stopped is None
    assert {one.result.outcome for one in status.writes} == {"created"}
    assert len(status.writes) == 4
    assert status.last_run is not None
    assert status.last_run.result == "success"


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (Schedule(every=timedelta(minutes=5)), "every 5m"),
        (Schedule(every=timedelta(seconds=90), jitter=timedelta(seconds=10)), "every 1m30s, up to 10s later"),
        (Schedule(cron="*/5 * * * *"), "cron */5 * * * * (UTC)"),
        (Schedule(cron="0 3 * * *", timezone="Asia/Tokyo"), "cron 0 3 * * * (Asia/Tokyo)"),
    ],
)
def test_a_schedule_in_words(schedule: Schedule, words: str):
    """As an operator says it."""
    assert schedule_text(schedule) == words


async def test_a_standby_is_ready_and_shows_no_account_as_stale(stage: Stage):
    """It has checked no accounts, for any time. When it leads, it is not ready before its first run."""
    assert stage.board.status().leader is None
    election = stage.stand_by()
    stage.board._was_ready = False
    stage.wait(100_000)
    election._read(stage.seconds, "another")
    stage.board.changed()
    status = stage.board.status()
    assert (status.leader, status.ready, status.next_run, status.stale_accounts) == (False, True, None, [])
    assert (status.ready_reason, status.lease_trouble) == ("standing by: another replica leads", None)
    assert not any(account.stale or account.next_try for account in status.accounts)
    election._renewed(stage.seconds)
    stage.board.changed()
    status = stage.board.status()
    assert status.leader
    assert status.next_run is not None
    assert status.stale_accounts


async def test_a_new_leader_calls_no_account_stale_before_it_could_check_it(stage: Stage):
    """Three intervals count from the election: a standby that started days ago must not begin with an alarm."""
    election = stage.stand_by()
    stage.wait(100_000)
    election._renewed(stage.seconds)
    stage.board.elected()
    assert stage.board.status().stale_accounts == []
    stage.wait(901)
    election._renewed(stage.seconds)
    stage.board.changed()
    assert len(stage.board.status().stale_accounts) == 2


async def test_a_standby_is_ready_only_while_it_can_read_its_lease(stage: Stage):
    """Once read and not longer ago than the Lease lasts, also where it led, or was ready, before; the reason is the failure."""
    election = stage.stand_by()

    def seen() -> tuple[bool, str | None, str | None]:
        stage.board.changed()
        status = stage.board.status()
        return status.ready, status.ready_reason, status.lease_trouble

    never = "standing by, but could not take over: the Lease render/keysync was never read"
    assert seen() == (False, never, "never_read")
    election._failed(FORBIDDEN)
    assert seen() == (False, f"{never}: Kubernetes answered 403 Forbidden", "never_read")
    election._read(stage.seconds, "another")
    stage.wait(10)
    assert seen() == (True, "standing by: another replica leads", None)
    election._failed(FORBIDDEN)
    stage.wait(1)
    old = "standing by, but could not take over: the Lease render/keysync was last read 11 s ago"
    assert seen() == (False, f"{old}: Kubernetes answered 403 Forbidden", "stale")
    election._renewed(stage.seconds)
    assert seen() == (True, None, None)
    stage.wait(10)
    assert stage.board.status().leader is False
    assert seen()[0]
    stage.wait(1)
    assert seen() == (False, old, "stale")


async def test_a_free_lease_that_cannot_be_written_is_no_lead_of_another(stage: Stage):
    """A role that lacks `update`: the Lease is read, and the sentence says what keeps the replica from leading."""
    election = stage.stand_by()
    election._read(stage.seconds, None)
    election._failed(FORBIDDEN)
    status = stage.board.status()
    assert status.ready
    assert status.ready_reason == (
        "standing by: no other replica holds the Lease render/keysync, and this one has not taken it yet: "
        "Kubernetes answered 403 Forbidden"
    )


async def test_a_leader_is_ready_after_its_first_run(stage: Stage):
    """Before its election, while no Lease was read, it is not either."""
    election = stage.stand_by()
    assert not stage.board.status().ready
    election._renewed(stage.seconds)
    stage.board.changed()
    assert (stage.board.status().ready, stage.board.status().ready_reason) == (False, "the first run is not done")
    await stage.passed()
    assert (stage.board.status().ready, stage.board.status().ready_reason) == (True, None)


async def test_it_says_from_when_on_a_run_is_overdue(stage: Stage):
    """Three intervals after the latest start; never on a standby."""
    assert stage.board.status().overdue == NOW + timedelta(minutes=15)
    stage.wait(60)
    stage.health.run_started("p", stage.instant(), 60.0)
    stage.health.run_ended("p")
    stage.board.changed()
    assert stage.board.status().overdue == NOW + timedelta(minutes=16)
    stage.stand_by()
    stage.board.changed()
    assert (stage.board.status().overdue, stage.board.status().discovery_complete) == (None, None)
