"""What the daemon knows of each account: filled by runs as they go, shown by the page, the probes and the metrics."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from keysync.config.settings import Account
from keysync.daemon.triggers import Trigger
from keysync.failures import FailureRecord
from keysync.names import fold
from keysync.report.json import summary
from keysync.report.metrics import result_of
from keysync.report.status import AccountState, AccountStatus, RunStatus, SecretStatus, WriteRecord
from keysync.sync.causes import cause_text
from keysync.sync.model import BAD, DONE, WRITES, ItemRef, Report, Result
from keysync.targets.cache import interned_time

_HISTORY: Final = 200
STALE_INTERVALS: Final = 3
_WRITTEN: Final = frozenset(DONE.values())
_FAILED: Final = frozenset({"failed", "unknown"})
_IN_STEP: Final = _WRITTEN | {"unchanged"}
_NEVER: Final[Mapping[ItemRef, datetime]] = MappingProxyType({})


@dataclass(slots=True)
class Entry:
    """One account. `due` are items of a run under way that have no result yet, `turn` names that run.

    `latest` are the results of the latest whole look, `current` those of one that is not over. Thousands of entries are kept,
    each of a run for the next: hence tuples, and nothing where there is nothing.

    `interval` is how often it is looked at, at the busiest; `trigger`, for a crontab, says exactly when.
    """

    account: Account
    schedule: str
    interval: timedelta
    read_only: bool
    due: tuple[ItemRef, ...] = ()
    turn: object = None
    latest: tuple[Result, ...] = ()
    changed: Mapping[ItemRef, datetime] = field(default_factory=lambda: _NEVER)
    current: tuple[Result, ...] = ()
    last_attempt: datetime | None = None
    last_success: datetime | None = None
    failures: int = 0
    held: bool = False
    trigger: Trigger | None = None
    _stale_at: tuple[datetime, datetime] | None = None

    @property
    def results(self) -> dict[ItemRef, Result]:
        """The latest results by their references."""
        return {result.ref: result for result in self.latest}

    def known(self, ref: ItemRef) -> ItemRef:
        """The reference equal to `ref` that is kept already, if there is one: thousands of others need not be kept for a run."""
        return next((result.ref for result in self.latest if result.ref == ref), ref)

    def worst(self) -> FailureRecord | None:
        """The failure that speaks for the account, if its latest look had any."""
        return next((result.error for result in self.latest if result.error is not None), None)

    def stale_at(self, started: datetime) -> datetime:
        """When three intervals will have gone by since the account was in sync, or since `started` if it never was."""
        since = self.last_success or started
        if self.trigger is None or self.trigger.every is not None:
            return since + STALE_INTERVALS * self.interval
        if self._stale_at is None or self._stale_at[0] != since:
            self._stale_at = since, self.trigger.following(since, STALE_INTERVALS)
        return self._stale_at[1]

    @property
    def in_sync(self) -> bool:
        """Whether the latest look found or brought every secret in sync."""
        return bool(self.latest) and all(result.outcome in _IN_STEP for result in self.latest)


class AccountStates:
    """Accounts by ARM id in lower case, the recent writes, and the last run; a `RunObserver`.

    `settled` is called whenever an account has its last result of a run.
    """

    def __init__(self, now: Callable[[], datetime], settled: Callable[[Entry], None] = lambda _entry: None) -> None:
        self._now = now
        self.settled = settled
        self.entries: dict[str, Entry] = {}
        self.writes: deque[WriteRecord] = deque(maxlen=_HISTORY)
        self.last_run: RunStatus | None = None
        self._stops: dict[frozenset[str], str] = {}
        self.revision = 0
        """Grows with every change: what is shown is made anew only when it has."""

    @property
    def stopped(self) -> str | None:
        """The safety stops in force, None where there is none."""
        return " ".join(self._stops.values()) or None

    def cover(self, entries: Mapping[str, Entry]) -> None:
        """Takes the accounts of a configuration; those that were there before keep what is known of them."""
        for name, entry in entries.items():
            known = self.entries.get(name)
            if known is not None:
                known.account, known.schedule = entry.account, entry.schedule
                known.interval, known.read_only = entry.interval, entry.read_only
                known.trigger = entry.trigger
        self.entries = {name: self.entries.get(name, entry) for name, entry in entries.items()}
        # A stop of accounts that are all gone can be released by no run.
        self._stops = {those: told for those, told in self._stops.items() if those & self.entries.keys()}
        self.revision += 1

    def forget(self) -> None:
        """Takes every account as not looked at yet: another process has looked at it since, or will. Writes stay."""
        for name, entry in self.entries.items():
            self.entries[name] = Entry(
                entry.account, entry.schedule, entry.interval, entry.read_only, trigger=entry.trigger
            )
        self._stops = {}
        self.revision += 1

    def free(self, accounts: Iterable[Account]) -> tuple[Account, ...]:
        """Those of `accounts` that no run is busy with."""
        return tuple(account for account in accounts if not self._busy(account))

    def _busy(self, account: Account) -> bool:
        entry = self.entries.get(account.key)
        return entry is not None and bool(entry.due)

    def begin(self, refs: Iterable[ItemRef]) -> object:
        """A run begins that is to have a result for each of `refs`; returns what `end` is to be told."""
        turn = object()
        try:
            for ref in refs:
                entry = self.entries.get(fold(ref.account))
                if entry is not None:
                    entry.due, entry.turn = (*_without(entry.due, ref), entry.known(ref)), turn
        except BaseException:
            self.end(turn)  # or nobody would, and those before it were busy for ever
            raise
        self.revision += 1
        return turn

    def end(self, turn: object) -> None:
        """The run of that `turn` has ended, however it did: nothing of it is waited for any more.

        An account that was done with it long before may be in another pass by now, which still waits for it.
        """
        for entry in self.entries.values():
            if entry.turn is turn:
                # Of a run that crashed the rest never came, so what did is no look at the account.
                entry.due, entry.current, entry.turn = (), (), None
        self.revision += 1

    # The observer

    def started(self, run_id: str, scopes: int) -> None:
        """Accounts are told by `begin`."""

    def collected(self, run_id: str, account: str) -> None:
        """Only results count."""

    def result(self, run_id: str, result: Result) -> None:  # noqa: ARG002  # the observer's signature
        """Notes what became of an item; with its last one the account has settled."""
        self.revision += 1
        # One object for all that comes within a second: in a large fleet that is hundreds of accounts.
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
            self._settle(entry, now)

    def _settle(self, entry: Entry, now: datetime) -> None:
        # What is as it was stays the same objects: memory that every run takes anew is memory that nobody gets back.
        if entry.current != entry.latest:
            entry.latest = entry.current
        entry.current = ()
        if entry.changed:
            there = entry.results
            entry.changed = {ref: moment for ref, moment in entry.changed.items() if ref in there} or _NEVER
        entry.last_attempt = now
        entry.held = False
        if entry.in_sync:
            entry.last_success = now
        failed = any(result.outcome in _FAILED for result in entry.latest)
        entry.failures = entry.failures + 1 if failed else 0
        self.settled(entry)

    def finished(self, report: Report) -> None:
        """Notes the run, and whether a limit stopped it."""
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
                    entry.held = True

    def _note_stop(self, report: Report) -> None:
        accounts = frozenset(fold(result.ref.account) for result in report.results)
        # A run over other accounts says nothing of a stop, one that has any of its accounts releases it.
        self._stops = {those: told for those, told in self._stops.items() if not those & accounts}
        if report.stopped is not None:
            self._stops[accounts] = report.stopped


def _without(refs: tuple[ItemRef, ...], ref: ItemRef) -> tuple[ItemRef, ...]:
    return tuple(one for one in refs if one != ref)


def shown(entry: Entry, now: datetime, next_try: datetime | None, started: datetime) -> AccountStatus:
    """An account as the page has it."""
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
    """Whether three intervals have gone by since the account was in sync, or since the start if it never was."""
    return now > entry.stale_at(started)


def _state(entry: Entry) -> AccountState:
    outcomes = {result.outcome for result in entry.latest}
    if not outcomes:
        return "pending"
    if outcomes & _FAILED:
        return "failing"
    if entry.held:
        return "held"
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
