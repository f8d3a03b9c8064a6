"""The snapshot: an immutable copy of the daemon's state for the page, the probes and the metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from keysync import __version__
from keysync.calls import BreakerPhase, BreakerState, BreakerStates
from keysync.config.model import Config, Schedule
from keysync.daemon.account_state import schedule_text
from keysync.daemon.health import Instant
from keysync.daemon.leader_election import LeaderElector, Standby
from keysync.daemon.supervisor import Supervisor
from keysync.names import natural
from keysync.report.status import (
    FAILED,
    AccountStatus,
    CredentialStatus,
    Status,
    VaultState,
    VaultStatus,
    sync_state_of,
)
from keysync.sync.model import Result

_FRESH_SECONDS = 1.0


@dataclass(slots=True)
class SnapshotBuilder:
    """Builds the snapshot, and caches it until something changes, for one second at most.

    `election` is None if this replica always leads. Use it on the event loop only, where its inputs are written.
    """

    supervisor: Supervisor
    breakers: BreakerStates
    next_starts: Callable[[], Mapping[Schedule, datetime]]
    started: datetime
    clock: Callable[[], Instant] = Instant.now
    election: LeaderElector | None = None
    config_error: str | None = None
    _cached: tuple[float, int, Status] | None = None
    _was_ready: bool = False
    _elected: datetime | None = None

    def status(self) -> Status:
        """The current snapshot."""
        now, revision = self.clock(), self.supervisor.account_states.revision
        if self._cached is not None:
            at, cached_revision, status = self._cached
            if cached_revision == revision and 0 <= now.monotonic - at < _FRESH_SECONDS:
                return status
        status = self._build(now)
        self._cached = (now.monotonic, revision, status)
        return status

    def changed(self) -> None:
        """Drops the cached snapshot: something other than an account has changed."""
        self._cached = None

    def elected(self) -> None:
        """Records that this replica leads from now on: accounts that it has not checked since are not stale yet."""
        self._elected = self.clock().wall
        self.changed()

    def _build(self, now: Instant) -> Status:
        runtime = self.supervisor.runtime
        config, shard, inventory = runtime.config, runtime.shared.shard, runtime.inventory
        leader = None if self.election is None else self.election.leads()
        starts = self.next_starts()
        accounts = tuple(self._accounts(starts, now))
        ready = self._was_ready or all(account.last_attempt is not None for account in accounts)
        failure = self.supervisor.health.failure(now)
        breakers = self.breakers.states()
        status = Status(
            now=now.wall,
            version=__version__,
            started=self.started,
            every=schedule_text(config.schedule),
            owner=config.owner,
            read_only=config.read_only,
            next_run=min(starts.values(), default=None),
            last_run=self.supervisor.account_states.last_run,
            stopped=self.supervisor.account_states.stopped,
            config_error=self.config_error,
            leader=leader,
            shard=None if shard is None else str(shard),
            overdue=self.supervisor.health.overdue(now),
            discovery_complete=inventory.complete if config.discover else None,
            unserved=tuple(sorted(inventory.unserved, key=lambda unserved: natural(unserved.account))),
            ready=ready,
            ready_reason=None if ready else "the first run is not done",
            live=failure is None,
            live_reason=failure,
            accounts=accounts,
            vaults=tuple(_vaults(config, accounts, breakers, now)),
            credentials=tuple(
                CredentialStatus(each.name, *_breaker(breakers.get(f"credential:{each.name}"), now))
                for each in runtime.credentials()
            ),
            writes=tuple(self.supervisor.account_states.writes),
        )
        if self.election is not None and not leader:
            status = _of_standby(status, self.election.standby())
        self._was_ready = self._was_ready or status.ready
        return status

    def _accounts(self, starts: Mapping[Schedule, datetime], now: Instant) -> Iterator[AccountStatus]:
        since = self._elected or self.started
        for entry in self.supervisor.account_states.entries.values():
            next_try, wait = starts.get(entry.schedule), entry.backoff.retry_at - now.monotonic
            if wait > 0:
                # At the next start of its schedule, but not before its backoff is over.
                moment = now.wall + timedelta(seconds=wait)
                next_try = moment if next_try is None else max(next_try, moment)
            stale = now.wall > entry.stale_at(since)
            yield replace(entry.status, busy=bool(entry.due), stale=stale, next_try=next_try)


def _of_standby(status: Status, standby: Standby) -> Status:
    """The status of a replica that does not lead: it checks no accounts, so none is stale and none has a next try."""
    return replace(
        status,
        next_run=None,
        overdue=None,
        discovery_complete=None,
        unserved=(),
        ready=standby.trouble is None,
        ready_reason=standby.reason,
        lease_trouble=standby.trouble,
        accounts=tuple(replace(account, stale=False, next_try=None) for account in status.accounts),
    )


def _vaults(
    config: Config, accounts: Sequence[AccountStatus], breakers: Mapping[str, BreakerState], now: Instant
) -> Iterator[VaultStatus]:
    by_vault: defaultdict[str, list[Result]] = defaultdict(list)
    for account in accounts:
        for result in account.results:
            by_vault[result.ref.vault].append(result)
    for name, vault in config.vaults.items():
        results = by_vault[name]
        breaker, retry_at = _breaker(breakers.get(f"vault:{name}"), now)
        failed = [result for result in results if result.outcome in FAILED]
        failing = len(failed) == len(results) > 0 or breaker != "closed"
        state: VaultState = "read_only" if config.read_only or vault.read_only else "ok"
        if failing or not results:
            state = "failing" if failing else "pending"
        yield VaultStatus(
            name=name,
            url=vault.url,
            state=state,
            breaker=breaker,
            secrets=len(results),
            out_of_sync=sum(sync_state_of(result) == "out_of_sync" for result in results),
            error=next((result.error for result in failed if result.error is not None), None) if failing else None,
            retry_at=retry_at,
        )


def _breaker(breaker: BreakerState | None, now: Instant) -> tuple[BreakerPhase, datetime | None]:
    """The phase of a breaker, and the next try."""
    if breaker is None or breaker.retry_at is None:
        return "closed" if breaker is None else breaker.state, None
    return breaker.state, now.wall + timedelta(seconds=max(0.0, breaker.retry_at - now.monotonic))
