"""The snapshot: an immutable copy of the daemon's state for the page, the probes and the metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from keysync import __version__
from keysync.calls import BreakerState, BreakerStates
from keysync.config.formats import format_duration
from keysync.config.model import Account, Config, Schedule
from keysync.daemon.account_state import AccountStates, Entry, account_status, is_stale
from keysync.daemon.health import Health, Instant
from keysync.daemon.leader import Leader
from keysync.daemon.supervisor import Supervisor, next_try
from keysync.names import natural
from keysync.report.status import CredentialStatus, Status, UnservedAccount, VaultState, VaultStatus, sync_state_of
from keysync.sources.unserved_accounts import Unserved
from keysync.sync.model import Result

_FRESH_SECONDS = 1.0


def schedule_text(schedule: Schedule) -> str:
    """A schedule as text, such as ``every 5m``."""
    if schedule.every is not None:
        return f"every {format_duration(schedule.every)}{_jitter(schedule)}"
    return f"cron {schedule.cron} ({schedule.timezone or 'UTC'}){_jitter(schedule)}"


def _jitter(schedule: Schedule) -> str:
    return f", up to {format_duration(schedule.jitter)} later" if schedule.jitter else ""


@dataclass(slots=True)
class SnapshotBuilder:
    """Builds the snapshot, and caches it until something changes, for one second at most.

    `credentials` are the names of the credentials in use. `leadership` is None without leader election, `discovery_complete`
    is None without `discover`. Use it on the event loop only, where its inputs are written.
    """

    account_states: AccountStates
    supervisor: Supervisor
    health: Health
    breakers: BreakerStates
    next_starts: Callable[[], Mapping[Schedule, datetime]]
    started: datetime
    clock: Callable[[], Instant] = Instant.now
    leadership: Leader | None = None
    config_error: str | None = None
    credentials: tuple[str, ...] = ()
    shard: str | None = None
    discovery_complete: bool | None = None
    unserved: tuple[Unserved, ...] = ()
    _cached: tuple[float, int, Status] | None = field(default=None)

    def status(self) -> Status:
        """The current snapshot."""
        now = self.clock()
        if self._cached is not None and self._cached[1] == self.account_states.revision:
            age = now.monotonic - self._cached[0]
            if 0 <= age < _FRESH_SECONDS:
                return self._cached[2]
        built = self._build(now)
        self._cached = (now.monotonic, self.account_states.revision, built)
        return built

    def changed(self) -> None:
        """Drops the cached snapshot: something other than an account has changed."""
        self._cached = None

    def elected(self) -> None:
        """Records that this replica leads from now on: accounts that it has not checked since are not stale yet."""
        self._elected = self.clock().wall
        self.changed()

    def _build(self, now: Instant) -> Status:
        config = self.supervisor.generation.config
        entries = list(self.account_states.entries.values())
        starts = self.next_starts()
        live, reason = self.health.verdict(now)
        leader = None if self.leadership is None else self.leadership.leads()
        ready_reason: str | None
        standby = self.leadership.standby() if self.leadership is not None and not leader else None
        stands_by = standby is not None
        # A standby checks no accounts, so no account is stale on a standby.
        if standby is not None:
            ready, ready_reason = standby.trouble is None, standby.reason
        else:
            ready = self._was_ready or all(entry.last_attempt is not None for entry in entries)
            ready_reason = None if ready else "the first run is not done"
        started = now.wall if stands_by else self._elected or self.started
        self._was_ready = self._was_ready or ready
        return Status(
            now=now.wall,
            version=__version__,
            started=self.started,
            every=schedule_text(config.schedule),
            owner=config.owner,
            read_only=config.read_only,
            next_run=None if stands_by else min(starts.values(), default=None),
            last_run=self.account_states.last_run,
            stopped=self.account_states.stopped,
            config_error=self.config_error,
            leader=leader,
            shard=self.shard,
            overdue=None if stands_by else self.health.overdue(now),
            discovery_complete=None if stands_by else self.discovery_complete,
            unserved=()
            if stands_by
            else tuple(
                UnservedAccount(one.account, one.reason)
                for one in sorted(self.unserved, key=lambda one: natural(one.account))
            ),
            ready=ready,
            ready_reason=ready_reason,
            lease_trouble=None if standby is None else standby.trouble,
            live=live,
            live_reason=reason,
            stale_accounts=tuple(entry.account.resource_id for entry in entries if is_stale(entry, now.wall, started)),
            accounts=tuple(
                account_status(
                    entry,
                    now.wall,
                    None if stands_by else self._next_try(entry.account, config, starts, now),
                    started,
                )
                for entry in entries
            ),
            vaults=self._vaults(config, entries, now),
            credentials=self._credentials(now),
            writes=tuple(self.account_states.writes),
        )

    def _next_try(
        self, account: Account, config: Config, starts: Mapping[Schedule, datetime], now: Instant
    ) -> datetime | None:
        start = starts.get(account.schedule or config.schedule)
        return next_try(start, self.supervisor.retry_at(account), now.wall, now.monotonic)

    def _vaults(self, config: Config, entries: Sequence[Entry], now: Instant) -> tuple[VaultStatus, ...]:
        by_vault: defaultdict[str, list[Result]] = defaultdict(list)
        for entry in entries:
            for result in entry.latest:
                by_vault[result.ref.vault].append(result)
        breakers = self.breakers.states()
        return tuple(_vault(name, config, by_vault[name], breakers.get(f"vault:{name}"), now) for name in config.vaults)

    def _credentials(self, now: Instant) -> tuple[CredentialStatus, ...]:
        breakers = self.breakers.states()
        return tuple(_credential(name, breakers.get(f"credential:{name}"), now) for name in self.credentials)

    _was_ready: bool = False
    _elected: datetime | None = None


def _vault(
    name: str, config: Config, results: Sequence[Result], breaker: BreakerState | None, now: Instant
) -> VaultStatus:
    settings = config.vaults[name]
    is_open = breaker is not None and breaker.state != "closed"
    failed = [result for result in results if result.outcome in {"failed", "unknown"}]
    error = next((result.error for result in failed if result.error is not None), None)
    failing = is_open or (bool(results) and len(failed) == len(results))
    read_only = config.read_only or settings.read_only
    state: VaultState = "failing" if failing else "pending" if not results else "read_only" if read_only else "ok"
    return VaultStatus(
        name=name,
        url=settings.url,
        state=state,
        breaker=breaker.state if breaker is not None else "closed",
        secrets=len(results),
        out_of_sync=sum(sync_state_of(result.outcome, result.verdict) == "out_of_sync" for result in results),
        error=error.to_dict() if failing and error is not None else None,
        retry_at=_retry_at(breaker, now),
    )


def _credential(name: str, breaker: BreakerState | None, now: Instant) -> CredentialStatus:
    if breaker is None:
        return CredentialStatus(name)
    return CredentialStatus(name, breaker.state, _retry_at(breaker, now))


def _retry_at(breaker: BreakerState | None, now: Instant) -> datetime | None:
    if breaker is None or breaker.retry_at is None:
        return None
    return now.wall + timedelta(seconds=max(0.0, breaker.retry_at - now.monotonic))
