"""The state of each account, as the runs of the daemon leave it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

from keysync.config.formats import format_duration
from keysync.config.model import Account, Config, Schedule
from keysync.daemon.backoff import Backoff
from keysync.daemon.fire_times import following, interval_of
from keysync.failures import FailureRecord
from keysync.names import fold
from keysync.report.status import FAILED, WRITTEN, AccountStatus, RunStatus, WriteRecord, sync_state_of
from keysync.sync.model import ItemRef, Report, Result
from keysync.sync.observers import RunObserver

_HISTORY: Final = 200
STALE_INTERVALS: Final = 3
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


def schedule_text(schedule: Schedule) -> str:
    """A schedule as text, such as ``every 5m``."""
    jitter = f", up to {format_duration(schedule.jitter)} later" if schedule.jitter else ""
    if schedule.every is not None:
        return f"every {format_duration(schedule.every)}{jitter}"
    return f"cron {schedule.cron} ({schedule.timezone or 'UTC'}){jitter}"


@dataclass(slots=True)
class Entry:
    """The status of one account, its schedule with the shortest time between two runs, and its part in the active run.

    `due` are the items of an active run, with their results so far; `run_key` identifies the run. `since` is when the schedule
    last began a run (monotonic seconds). With `requeued` the account gets one more run when it is free.
    """

    status: AccountStatus
    schedule: Schedule
    interval: timedelta
    due: dict[ItemRef, Result | None] = field(default_factory=dict[ItemRef, "Result | None"])
    run_key: object = None
    since: float | None = None
    requeued: bool = False
    backoff: Backoff = field(default_factory=Backoff)

    @property
    def account(self) -> Account:
        """The account in the configuration."""
        return self.status.account

    def worst(self) -> FailureRecord | None:
        """The first failure of the latest results; None if there is none."""
        return next((result.error for result in self.status.results if result.error is not None), None)

    def stale_at(self, started: datetime) -> datetime:
        """When the account becomes stale: three intervals after it was last in sync, or after `started` if it never was."""
        return following(self.schedule, self.status.last_success or started, STALE_INTERVALS) or _NEVER

    def finish(self, results: Iterable[Result], now: datetime) -> None:
        """Takes the results of a run that has one for each secret."""
        before, results = self.status, tuple(sorted(results, key=lambda result: result.ref))
        # Unchanged results keep their objects: new objects in each run would fragment the heap.
        results = before.results if results == before.results else results
        changed = {result.ref: before.changed.get(result.ref) for result in results} if before.changed else {}
        changed |= {result.ref: now for result in results if result.outcome in WRITTEN}
        failed = any(result.outcome in FAILED for result in results)
        in_sync = all(sync_state_of(result) == "in_sync" for result in results)
        self.due = {}
        self.status = replace(
            before,
            results=results,
            changed={ref: moment for ref, moment in changed.items() if moment is not None},
            last_attempt=now,
            last_success=now if in_sync else before.last_success,
            failures=before.failures + 1 if failed else 0,
            needs_accept=False,
        )


class AccountStates(RunObserver):
    """Accounts by ARM id in lower case, the recent writes, and the last run.

    `account_done` is called when an account has its last result of a run. `revision` grows with each change: only then the
    snapshot is built again.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.account_done: Callable[[Entry], None] = lambda _entry: None
        self.entries: dict[str, Entry] = {}
        self.writes: deque[WriteRecord] = deque(maxlen=_HISTORY)
        self.last_run: RunStatus | None = None
        self._stops: dict[frozenset[str], str] = {}
        self.revision = 0

    @property
    def stopped(self) -> str | None:
        """The safety limits that currently stop runs; None if there are none."""
        return " ".join(self._stops.values()) or None

    def cover(self, config: Config, accounts: Iterable[Account]) -> None:
        """Sets the accounts of `config`. Accounts that stay keep their state."""
        now = self._now()

        @cache
        def described(schedule: Schedule) -> tuple[str, timedelta]:
            # Once per schedule, not per account: the interval of a crontab takes a while to compute.
            return schedule_text(schedule), interval_of(schedule, now)

        covered: dict[str, Entry] = {}
        for account in accounts:
            schedule, read_only = account.schedule or config.schedule, config.read_only or account.read_only
            text, interval = described(schedule)
            entry = self.entries.get(account.key) or Entry(AccountStatus(account, text), schedule, interval)
            entry.status = replace(entry.status, account=account, schedule=text, read_only=read_only)
            entry.schedule, entry.interval = schedule, interval
            covered[account.key] = entry
        self.entries = covered
        # No run can release a stop whose accounts are all gone.
        self._stops = {accounts: reason for accounts, reason in self._stops.items() if accounts & covered.keys()}
        self.revision += 1

    def forget(self) -> None:
        """Resets every account to not checked yet, because another process checks it. The recent writes stay."""
        for name, entry in self.entries.items():
            status = AccountStatus(entry.account, entry.status.schedule, entry.status.read_only)
            self.entries[name] = Entry(status, entry.schedule, entry.interval)
        self._stops = {}
        self.revision += 1

    def free(self, accounts: Iterable[Account]) -> tuple[Account, ...]:
        """The `accounts` that are in no active run."""
        found = ((account, self.entries.get(account.key)) for account in accounts)
        return tuple(account for account, entry in found if entry is None or not entry.due)

    def begin(self, refs: Iterable[ItemRef]) -> object:
        """Begins a run that will have a result for each of `refs`. Returns the key for `end`."""
        run_key = object()
        try:
            for ref in refs:
                entry = self.entries.get(fold(ref.account))
                if entry is not None:
                    entry.due[ref], entry.run_key = None, run_key
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
                entry.due, entry.run_key = {}, None
        self.revision += 1

    def result(self, run_id: str, result: Result) -> None:  # noqa: ARG002  # the observer's signature
        """Records the result of an item. After its last item, the account is done."""
        self.revision += 1
        now = self._now().replace(microsecond=0)
        if result.outcome in WRITTEN:
            self.writes.appendleft(WriteRecord(now, result))
        entry = self.entries.get(fold(result.ref.account))
        if entry is None or result.ref not in entry.due:
            return
        entry.due[result.ref] = result
        results = [each for each in entry.due.values() if each is not None]
        if len(results) == len(entry.due):
            entry.finish(results, now)
            self.account_done(entry)

    def finished(self, report: Report) -> None:
        """Records the run, and whether a limit stopped it."""
        self.revision += 1
        if self._stops or report.stopped is not None:
            self._note_stop(report)
        self.last_run = RunStatus(
            report.run_id, report.started, report.duration_seconds, report.result, report.summary()
        )

    def _note_stop(self, report: Report) -> None:
        accounts = frozenset(fold(result.ref.account) for result in report.results)
        # A run over any account of a stop releases it; a run over other accounts does not.
        self._stops = {stopped: reason for stopped, reason in self._stops.items() if not stopped & accounts}
        if report.stopped is None:
            return
        self._stops[accounts] = report.stopped
        for name in {fold(result.ref.account) for result in report.results if result.outcome == "skipped"}:
            entry = self.entries.get(name)
            if entry is not None:
                entry.status = replace(entry.status, needs_accept=True)
