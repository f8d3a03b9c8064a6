"""The state of each account: runs update it, and the page, the probes and the metrics show it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from keysync.config.model import Account, Schedule
from keysync.daemon.fire_times import following
from keysync.failures import FailureRecord
from keysync.names import fold
from keysync.report.causes import cause_text
from keysync.report.json import summary
from keysync.report.metrics import result_of
from keysync.report.status import AccountState, AccountStatus, RunStatus, SecretStatus, WriteRecord
from keysync.sync.model import BAD, DONE, WRITES, ItemRef, Report, Result
from keysync.targets.cache import interned_time

_HISTORY: Final = 200
STALE_INTERVALS: Final = 3
_WRITTEN: Final = frozenset(DONE.values())
_FAILED: Final = frozenset({"failed", "unknown"})
_IN_STEP: Final = _WRITTEN | {"unchanged"}
_UNCHANGED: Final[Mapping[ItemRef, datetime]] = MappingProxyType({})
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class Entry:
    """The state of one account. `due` are the items of an active run that have no result yet; `run_key` identifies that run.

    `latest` are the results of the last complete run, `current` those of the active one. There are thousands of entries, kept
    between runs, so they use tuples.

    `interval` is the shortest time between two runs; `crontab` is the schedule if it is one, for its exact fire times.
    """

    account: Account
    schedule: str
    interval: timedelta
    read_only: bool
    due: tuple[ItemRef, ...] = ()
    run_key: object = None
    latest: tuple[Result, ...] = ()
    changed: Mapping[ItemRef, datetime] = field(default_factory=lambda: _UNCHANGED)
    current: tuple[Result, ...] = ()
    last_attempt: datetime | None = None
    last_success: datetime | None = None
    failures: int = 0
    needs_accept: bool = False
    crontab: Schedule | None = None
    _stale_at: tuple[datetime, datetime] | None = None

    @property
    def results(self) -> dict[ItemRef, Result]:
        """The latest results by their references."""
        return {result.ref: result for result in self.latest}

    def known(self, ref: ItemRef) -> ItemRef:
        """The stored reference equal to `ref`, else `ref`. It saves memory for thousands of references during a run."""
        return next((result.ref for result in self.latest if result.ref == ref), ref)

    def worst(self) -> FailureRecord | None:
        """The first failure of the latest results; None if there is none."""
        return next((result.error for result in self.latest if result.error is not None), None)

    def stale_at(self, started: datetime) -> datetime:
        """When the account becomes stale: three intervals after it was last in sync, or after `started` if it never was."""
        since = self.last_success or started
        if self.crontab is None:
            return since + STALE_INTERVALS * self.interval
        if self._stale_at is None or self._stale_at[0] != since:
            self._stale_at = since, following(self.crontab, since, STALE_INTERVALS) or _NEVER
        return self._stale_at[1]

    @property
    def in_sync(self) -> bool:
        """Whether every secret is in sync by the latest results."""
        return bool(self.latest) and all(result.outcome in _IN_STEP for result in self.latest)


class AccountStates:
    """Accounts by ARM id in lower case, the recent writes, and the last run. It is a `RunObserver`.

    `account_done` is called when an account has its last result of a run.
    """

    def __init__(
        self, now: Callable[[], datetime], account_done: Callable[[Entry], None] = lambda _entry: None
    ) -> None:
        self._now = now
        self.account_done = account_done
        self.entries: dict[str, Entry] = {}
        self.writes: deque[WriteRecord] = deque(maxlen=_HISTORY)
        self.last_run: RunStatus | None = None
        self._stops: dict[frozenset[str], str] = {}
        self.revision = 0
        """Grows with each change. The snapshot is built again only if it has grown."""

    @property
    def stopped(self) -> str | None:
        """The safety limits that currently stop runs; None if there are none."""
        return " ".join(self._stops.values()) or None

    def cover(self, entries: Mapping[str, Entry]) -> None:
        """Sets the accounts of a configuration. Accounts that stay keep their state."""
        for name, entry in entries.items():
            known = self.entries.get(name)
            if known is not None:
                known.account, known.schedule = entry.account, entry.schedule
                known.interval, known.read_only = entry.interval, entry.read_only
                known.crontab = entry.crontab
        self.entries = {name: self.entries.get(name, entry) for name, entry in entries.items()}
        # No run can release a stop whose accounts are all gone.
        self._stops = {accounts: reason for accounts, reason in self._stops.items() if accounts & self.entries.keys()}
        self.revision += 1

    def forget(self) -> None:
        """Resets every account to not checked yet, because another process checks it. The recent writes stay."""
        for name, entry in self.entries.items():
            self.entries[name] = Entry(
                entry.account, entry.schedule, entry.interval, entry.read_only, crontab=entry.crontab
            )
        self._stops = {}
        self.revision += 1

    def free(self, accounts: Iterable[Account]) -> tuple[Account, ...]:
        """The `accounts` that are in no active run."""
        return tuple(account for account in accounts if not self._busy(account))

    def _busy(self, account: Account) -> bool:
        entry = self.entries.get(account.key)
        return entry is not None and bool(entry.due)

    def begin(self, refs: Iterable[ItemRef]) -> object:
        """Begins a run that will have a result for each of `refs`. Returns the key for `end`."""
        run_key = object()
        try:
            for ref in refs:
                entry = self.entries.get(fold(ref.account))
                if entry is not None:
                    entry.due, entry.run_key = (*_without(entry.due, ref), entry.known(ref)), run_key
        except BaseException:
            self.end(run_key)  # else the accounts so far would stay busy forever
            raise
        self.revision += 1
        return run_key

    def end(self, run_key: object) -> None:
        """Ends the run `run_key`, with or without success: its items are no longer due.

        An account that was done earlier may be in another run by now; it stays due there.
        """
        for entry in self.entries.values():
            if entry.run_key is run_key:
                # The results of a failed run are incomplete, so they are dropped.
                entry.due, entry.current, entry.run_key = (), (), None
        self.revision += 1

    # RunObserver

    def started(self, run_id: str, work_items: int) -> None:
        """No-op: `begin` has the accounts."""

    def collected(self, run_id: str, account: str) -> None:
        """No-op: only results are recorded."""

    def result(self, run_id: str, result: Result) -> None:  # noqa: ARG002  # the observer's signature
        """Records the result of an item. After its last item, the account is done."""
        self.revision += 1
        # Results of the same second share one object: in a large fleet these are hundreds of accounts.
        now = interned_time(self._now().replace(microsecond=0))
        if result.outcome in _WRITTEN:
            self.writes.appendleft(_write_record(result, now))
        entry = self.entries.get(fold(result.ref.account))
        if entry is None or result.ref not in entry.due:
            return
        entry.due = _without(entry.due, result.ref)
        entry.current = (*entry.current, result)
        if result.outcome in _WRITTEN:
            entry.changed = {**entry.changed, result.ref: now}
        if not entry.due:
            self._finish_account(entry, now)

    def _finish_account(self, entry: Entry, now: datetime) -> None:
        # Unchanged results keep their objects: new objects in each run would fragment the heap.
        if entry.current != entry.latest:
            entry.latest = entry.current
        entry.current = ()
        if entry.changed:
            there = entry.results
            entry.changed = {ref: moment for ref, moment in entry.changed.items() if ref in there} or _UNCHANGED
        entry.last_attempt = now
        entry.needs_accept = False
        if entry.in_sync:
            entry.last_success = now
        failed = any(result.outcome in _FAILED for result in entry.latest)
        entry.failures = entry.failures + 1 if failed else 0
        self.account_done(entry)

    def finished(self, report: Report) -> None:
        """Records the run, and whether a limit stopped it."""
        self.revision += 1
        if self._stops or report.stopped is not None:
            self._note_stop(report)
        self.last_run = RunStatus(
            report.run_id, report.started, report.duration_seconds, result_of(report), summary(report)
        )
        if report.stopped is not None:
            for result in report.results:
                entry = self.entries.get(fold(result.ref.account))
                if entry is not None and result.outcome == "skipped":
                    entry.needs_accept = True

    def _note_stop(self, report: Report) -> None:
        accounts = frozenset(fold(result.ref.account) for result in report.results)
        # A run over any account of a stop releases it; a run over other accounts does not.
        self._stops = {stopped: reason for stopped, reason in self._stops.items() if not stopped & accounts}
        if report.stopped is not None:
            self._stops[accounts] = report.stopped


def _without(refs: tuple[ItemRef, ...], ref: ItemRef) -> tuple[ItemRef, ...]:
    return tuple(other for other in refs if other != ref)


def account_status(entry: Entry, now: datetime, next_try: datetime | None, started: datetime) -> AccountStatus:
    """The account as the page and the API show it."""
    account = entry.account
    return AccountStatus(
        account=account.resource_id,
        name=account.name,
        resource_group=account.resource_group,
        subscription_id=account.subscription_id,
        state=_state(entry),
        last_attempt=entry.last_attempt,
        last_success=entry.last_success,
        next_try=next_try,
        failures=entry.failures,
        stale=is_stale(entry, now, started),
        read_only=entry.read_only,
        busy=bool(entry.due),
        schedule=entry.schedule,
        secrets=tuple(_secret(entry, result) for result in sorted(entry.latest, key=lambda result: result.ref)),
    )


def is_stale(entry: Entry, now: datetime, started: datetime) -> bool:
    """Whether three intervals have passed since the account was in sync, or since `started` if it never was."""
    return now > entry.stale_at(started)


def _state(entry: Entry) -> AccountState:
    outcomes = {result.outcome for result in entry.latest}
    if not outcomes:
        return "pending"
    if outcomes & _FAILED:
        return "failing"
    if entry.needs_accept:
        return "needs_accept"
    if outcomes & BAD:
        return "refused"
    if outcomes & (WRITES | {"skipped"}):
        return "drift"
    return "changed" if outcomes & _WRITTEN else "in_sync"


def _secret(entry: Entry, result: Result) -> SecretStatus:
    ref = result.ref
    verdict = "in_sync" if result.outcome in _WRITTEN else result.verdict
    return SecretStatus(
        key=ref.key,
        vault=ref.vault,
        secret=ref.secret,
        outcome=result.outcome,
        verdict=verdict,
        version=result.version,
        reason=result.reason,
        error=result.error.to_dict() if result.error else None,
        cause=cause_text(result),
        changed_at=entry.changed.get(ref),
        since=result.since or entry.changed.get(ref),
    )


def _write_record(result: Result, now: datetime) -> WriteRecord:
    ref = result.ref
    return WriteRecord(now, ref.account, ref.key, ref.vault, ref.secret, result.outcome, result.version)
