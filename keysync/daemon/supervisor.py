"""The supervisor starts sync runs over the accounts that are due. An account takes part in one run at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol

import structlog

from keysync.config.model import Account, Config, Schedule
from keysync.daemon.account_state import AccountStates, Entry
from keysync.daemon.backoff import Backoff
from keysync.daemon.groups import patience_of
from keysync.daemon.health import Health, Instant
from keysync.daemon.malloc import trim_heap
from keysync.report.status import AccountStatus
from keysync.sync.model import ItemRef
from keysync.sync.run import SyncRun, run_sync

# By then `azure.transport` has closed the run's idle connections, and most of the run's memory is free.
_TRIM_SECONDS: Final = 15.0


class Generation(Protocol):
    """An open configuration with its clients. It is closed after the last run that began in it."""

    @property
    def config(self) -> Config: ...
    @property
    def accounts(self) -> tuple[Account, ...]: ...

    def make_run(self, accounts: Sequence[Account], *, busy: int, patience: float) -> SyncRun:
        """A run over `accounts`. `busy` is the number of accounts that are due but still in an earlier run.

        `patience` (seconds) shortens how long the limits wait for slow accounts.
        """
        ...

    async def close(self) -> None:
        """Closes sessions and clients."""
        ...


class SkipObserver(Protocol):
    """Receives the number of accounts that were due but skipped: still busy, or backing off."""

    def __call__(self, *, busy: int, backing_off: int) -> None: ...


class Supervisor:
    """Starts runs when they are due and records their results. A failed run raises nothing here.

    Accounts with lasting failures are skipped for a while (`daemon.backoff`). Accounts that are still in an earlier run are
    skipped and counted. No run begins while `leads` returns False. `monotonic` returns seconds. `trim` is called when
    `trim_seconds` have passed since the last run ended.
    """

    def __init__(
        self,
        generation: Generation,
        account_states: AccountStates,
        health: Health,
        *,
        stop: asyncio.Event,
        leads: Callable[[], bool] = lambda: True,
        random: Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        skipped: SkipObserver | None = None,
        trim: Callable[[], None] = trim_heap,
        trim_seconds: float = _TRIM_SECONDS,
        log: Any = None,  # noqa: ANN401  # structlog's proxy has no type of its own
    ) -> None:
        self._generation = generation
        self._account_states = account_states
        self._health = health
        self._stop = stop
        self._leads = leads
        self._monotonic = monotonic
        self._skipped = skipped
        self._backoff: Backoff[str] = Backoff(random or Random())  # noqa: S311  # nosec B311  # when to try again is no secret
        self._since: dict[str, float] = {}  # when the schedule last began a run over each account
        self._requested = False  # whether the next run was requested (`sync_now`), not scheduled
        self._runs: dict[asyncio.Task[None], Generation] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._requeued: set[str] = set()
        self._requeue_handle: asyncio.Handle | None = None
        self._trim = trim
        self._trim_seconds = trim_seconds
        self._trim_timer: asyncio.TimerHandle | None = None
        self._log = log or structlog.get_logger("keysync")
        account_states.account_done = self._account_done

    @property
    def generation(self) -> Generation:
        """The current configuration."""
        return self._generation

    def due(self, accounts: Sequence[Account]) -> None:
        """Begins one run over the `accounts` that are neither busy nor backing off."""
        if self._stop.is_set():
            return
        if not self._leads():
            # The scheduler works; another replica leads.
            self._record_liveness()
            return
        requested, self._requested = self._requested, False
        ready = [account for account in accounts if self._backoff.ready(account.key, self._monotonic())]
        free = self._account_states.free(ready)
        busy, backing_off = len(ready) - len(free), len(accounts) - len(ready)
        if self._skipped is not None:
            self._skipped(busy=busy, backing_off=backing_off)
        if not free and accounts:
            # The scheduler works; every account is busy or backing off.
            self._log.info("run.skipped", busy=busy, backing_off=backing_off)
            self._record_liveness()
            return
        if not requested:
            self._since |= dict.fromkeys((account.key for account in free), self._monotonic())
        self._begin(free, busy)

    def begin(self, accounts: Sequence[Account]) -> None:
        """Begins an unscheduled run over `accounts`, such as newly discovered ones."""
        free = self._account_states.free(accounts)
        if free and self._may_begin():
            self._begin(free, busy=0)

    def sync_now(self) -> None:
        """Marks the next run as requested, and includes the accounts that are backing off.

        A busy account may have been read before the change that the user wants to see. It gets one more run when it is free.
        """
        self._backoff.retry_now()
        self._requested = True
        free = {account.key for account in self._account_states.free(self._generation.accounts)}
        self._requeued |= {account.key for account in self._generation.accounts} - free

    def retry_at(self, account: Account) -> float | None:
        """The monotonic time, in seconds, at which `account` may run again; None if it is not backing off."""
        state = self._backoff.states().get(account.key)
        return state.retry_at if state is not None and state.retry_at > self._monotonic() else None

    def replace(self, generation: Generation) -> None:
        """Makes `generation` current. The previous one is closed when its runs have ended."""
        before, self._generation = self._generation, generation
        kept = {account.key for account in generation.accounts}
        self._backoff.keep(kept)
        self._requeued &= kept
        self._since = {key: since for key, since in self._since.items() if key in kept}
        task = asyncio.create_task(self._close_when_idle(before), name="close the previous configuration")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def drain(self) -> None:
        """Waits for the active runs, which end soon after the stop is set, then closes every generation."""
        if self._runs:
            await asyncio.wait(list(self._runs))
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._generation.close()

    async def abandon(self) -> None:
        """Cancels the active runs and closes every generation. Used when the shutdown deadline has passed."""
        self._requeued.clear()
        for task in (*self._runs, *self._closing):
            task.cancel()
        await asyncio.gather(*self._runs, *self._closing, return_exceptions=True)
        await self._generation.close()

    async def end_runs(self, seconds: float) -> None:
        """Waits `seconds` for the active runs, whose stop is set, then cancels the rest."""
        runs = list(self._runs)
        if runs:
            _, late = await asyncio.wait(runs, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _begin(self, accounts: Sequence[Account], busy: int) -> None:
        generation = self._generation
        self._requeued -= {account.key for account in accounts}
        run = generation.make_run(accounts, busy=busy, patience=patience_of(generation.config, accounts))
        # Before the task starts: a trigger that fires in between must find the accounts busy.
        run_key = self._account_states.begin(_refs(run))
        task = asyncio.create_task(self._run(run, run_key, generation.config), name="sync run")
        self._runs[task] = generation
        task.add_done_callback(self._runs.pop)

    def _record_liveness(self) -> None:
        key = object()
        self._health.run_started(key, Instant.now(), 0.0)
        self._health.run_ended(key)

    async def _run(self, run: SyncRun, run_key: object, config: Config) -> None:
        key = object()
        self._health.run_started(key, Instant.now(), _deadline(config))
        try:
            await run_sync(run)
        except Exception as error:  # noqa: BLE001  # a bug in one run must not end the daemon
            self._log.error("run.error", exception=type(error).__name__, place=raised_at(error))
        finally:
            self._account_states.end(run_key)
            self._health.run_ended(key)
            self._run_requeued_soon()
            self._trim_later()

    def _trim_later(self) -> None:
        if self._trim_timer is not None:
            self._trim_timer.cancel()
        self._trim_timer = asyncio.get_running_loop().call_later(self._trim_seconds, self._trim)

    def _run_requeued_soon(self) -> None:
        # In the next loop iteration: accounts that become free together share one run.
        if self._requeued and self._requeue_handle is None:
            self._requeue_handle = asyncio.get_running_loop().call_soon(self._run_requeued)

    def _run_requeued(self) -> None:
        self._requeue_handle = None
        accounts = self._account_states.free(
            account for account in self._generation.accounts if account.key in self._requeued
        )
        if accounts and self._may_begin():
            self._begin(accounts, busy=0)

    def _may_begin(self) -> bool:
        return self._leads() and not self._stop.is_set()

    def _account_done(self, entry: Entry) -> None:
        record = entry.worst()
        if record is None:
            self._backoff.succeeded(entry.account.key)
        else:
            interval = entry.interval.total_seconds()
            # From the scheduled start: a requested run in between must not cost two scheduled runs.
            since = self._since.get(entry.account.key)
            self._backoff.failed(entry.account.key, record, self._monotonic(), interval, since=since)
        if entry.account.key in self._requeued:
            self._run_requeued_soon()

    async def _close_when_idle(self, generation: Generation) -> None:
        mine = [task for task, theirs in self._runs.items() if theirs is generation]
        try:
            if mine:
                await asyncio.wait(mine)
        finally:
            await generation.close()


def _refs(run: SyncRun) -> Iterator[ItemRef]:
    """The items that the run must report on. A generator: a list for thousands of accounts would take much memory."""
    for work in run.work_items:
        yield from (item.ref for item in work.items)
    yield from (result.ref for result in run.preflight.results)


def entries_of(
    config: Config, accounts: Iterable[Account], every: Callable[[Schedule], tuple[str, timedelta]]
) -> Mapping[str, Entry]:
    """New entries for `accounts`, by ARM id in lower case. `every` returns a schedule's description and its interval."""

    def entry(account: Account) -> Entry:
        schedule = account.schedule or config.schedule
        text, interval = every(schedule)
        status = AccountStatus(account, text, read_only=config.read_only or account.read_only)
        return Entry(status, interval, crontab=schedule if schedule.cron else None)

    return {account.key: entry(account) for account in accounts}


def next_try(start: datetime | None, retry_at: float | None, now: datetime, monotonic: float) -> datetime | None:
    """When an account runs next: at its schedule's next `start`, but not before `retry_at` (monotonic seconds)."""
    if retry_at is None:
        return start
    moment = now + timedelta(seconds=retry_at - monotonic)
    return moment if start is None else max(start, moment)


def _deadline(config: Config) -> float:
    """An upper bound for the duration of a run, in seconds: slow collecting, then writing with every retry."""
    timeouts = config.timeouts
    return timeouts.account.total_seconds() * 2 + timeouts.request.total_seconds() * 40


def raised_at(error: BaseException) -> str:
    """File and line where an exception was raised; never a value."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
