"""The supervisor starts sync runs over the accounts that are due. An account takes part in one run at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from random import Random
from typing import Any, Final

import structlog

from keysync.config.model import Account, Config
from keysync.daemon.account_state import AccountStates, Entry
from keysync.daemon.health import Health, Instant
from keysync.errors import raised_at
from keysync.report.metrics import Metrics
from keysync.sync.model import ItemRef
from keysync.sync.run import SyncRun, run_sync
from keysync.sync.runtime import Runtime

_LEAST_PATIENCE: Final = 0.5


class Supervisor:
    """Starts runs when they are due and records their results. A failed run raises nothing here.

    Accounts with lasting failures are skipped for a while (`daemon.backoff`). Accounts that are still in an earlier run are
    skipped and counted. No run begins while `may_begin` returns False. `monotonic` returns seconds.
    """

    def __init__(
        self,
        runtime: Runtime,
        account_states: AccountStates,
        health: Health,
        metrics: Metrics,
        *,
        may_begin: Callable[[], bool],
        random: Random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runtime = runtime
        """The current configuration. It is closed after the last run that began in it."""
        self.account_states = account_states
        self.health = health
        self._metrics = metrics
        self._may_begin = may_begin
        self._monotonic = monotonic
        self._random = random
        self._requested = False  # whether the next run was requested (`sync_now`), not scheduled
        self._runs: dict[asyncio.Task[None], Runtime] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._requeue_handle: asyncio.Handle | None = None
        self._log: Any = structlog.get_logger("keysync")
        account_states.account_done = self._account_done
        self.replace(runtime)

    def due(self, accounts: Sequence[Account]) -> None:
        """Begins one run over the `accounts` that are neither busy nor backing off."""
        if not self._may_begin():
            self.health.note_start(Instant.now())  # the scheduler works; another replica leads
            return
        requested, self._requested = self._requested, False
        now, entries = self._monotonic(), self.account_states.entries
        ready = [account for account in accounts if entries[account.key].backoff.retry_at <= now]
        free = self.account_states.free(ready)
        busy, backing_off = len(ready) - len(free), len(accounts) - len(ready)
        self._metrics.skipped(busy=busy, backing_off=backing_off)
        if not free and accounts:
            self._log.info("run.skipped", busy=busy, backing_off=backing_off)
            self.health.note_start(Instant.now())  # the scheduler works
            return
        if not requested:
            for account in free:
                entries[account.key].since = now
        self._begin(free, busy)

    def begin(self, accounts: Iterable[Account]) -> None:
        """Begins an unscheduled run over `accounts`, such as newly discovered ones."""
        free = self.account_states.free(accounts)
        if free and self._may_begin():
            self._begin(free, busy=0)

    def sync_now(self) -> None:
        """Marks the next run as requested, and includes the accounts that are backing off.

        A busy account may have been read before the change that the user wants to see. It gets one more run when it is free.
        """
        self._requested = True
        for entry in self.account_states.entries.values():
            entry.backoff.retry_now()
            entry.requeued = entry.requeued or bool(entry.due)

    def replace(self, runtime: Runtime) -> None:
        """Makes `runtime` current, with its present accounts. The previous one is closed when its runs have ended."""
        before, self.runtime = self.runtime, runtime
        refused = [skipped.account for skipped in runtime.inventory.refused if skipped.account is not None]
        self.account_states.cover(runtime.config, [*runtime.accounts, *refused])
        if before is not runtime:
            task = asyncio.create_task(self._close_when_idle(before), name="close the previous configuration")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def end_runs(self, seconds: float | None = None) -> None:
        """Waits for the active runs, whose stop is set. After `seconds` it cancels the rest."""
        if self._runs:
            _, late = await asyncio.wait(list(self._runs), timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def close(self) -> None:
        """Closes every configuration, after the last run."""
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self.runtime.close()

    def _begin(self, accounts: Sequence[Account], busy: int) -> None:
        runtime = self.runtime
        entries = [self.account_states.entries[account.key] for account in accounts]
        for entry in entries:
            entry.requeued = False
        run = runtime.make_run(accounts, busy=busy, patience=patience_of(entry.interval for entry in entries))
        # Before the task starts: a trigger that fires in between must find the accounts busy.
        run_key = self.account_states.begin(_refs(run))
        task = asyncio.create_task(self._run(run, run_key, runtime.config), name="sync run")
        self._runs[task] = runtime
        task.add_done_callback(self._runs.pop)

    async def _run(self, run: SyncRun, run_key: object, config: Config) -> None:
        # An upper bound for its duration: slow collecting, then writing with every retry.
        seconds = config.timeouts.account.total_seconds() * 2 + config.timeouts.request.total_seconds() * 40
        self.health.run_started(run_key, Instant.now(), seconds)
        try:
            await run_sync(run)
        except Exception as error:  # noqa: BLE001  # a bug in one run must not end the daemon
            self._log.error("run.error", exception=type(error).__name__, place=raised_at(error))
        finally:
            self.account_states.end(run_key)
            self.health.run_ended(run_key)
            self._run_requeued_soon()

    def _run_requeued_soon(self) -> None:
        # In the next loop iteration: accounts that become free together share one run.
        if self._requeue_handle is None:
            self._requeue_handle = asyncio.get_running_loop().call_soon(self._run_requeued)

    def _run_requeued(self) -> None:
        self._requeue_handle = None
        entries = self.account_states.entries
        self.begin([account for account in self.runtime.accounts if entries[account.key].requeued])

    def _account_done(self, entry: Entry) -> None:
        record, now = entry.worst(), self._monotonic()
        if record is None:
            entry.backoff.succeeded()
        else:
            # From the scheduled start: a requested run in between must not cost two scheduled runs.
            since = now if entry.since is None else entry.since
            entry.backoff.failed(record, now, entry.interval.total_seconds(), since, self._random)
        if entry.requeued:
            self._run_requeued_soon()

    async def _close_when_idle(self, runtime: Runtime) -> None:
        runs = [task for task, theirs in self._runs.items() if theirs is runtime]
        try:
            if runs:
                await asyncio.wait(runs)
        finally:
            await runtime.close()


def patience_of(intervals: Iterable[timedelta]) -> float:
    """A twentieth of the shortest interval in seconds, so that one account that hangs does not delay others."""
    return max(min(intervals, default=timedelta(minutes=5)).total_seconds() / 20, _LEAST_PATIENCE)


def _refs(run: SyncRun) -> Iterator[ItemRef]:
    """The items that the run must report on. A generator: a list for thousands of accounts would take much memory."""
    for work in run.work_items:
        yield from (item.ref for item in work.items)
    yield from (result.ref for result in run.preflight.results)
