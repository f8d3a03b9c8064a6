"""The supervisor: runs over the accounts that are due, each account in one run at a time, none waiting for another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol

import structlog

from keysync.config.settings import Account, Config, Schedule
from keysync.daemon.account_state import AccountStates, Entry
from keysync.daemon.backoff import Backoff
from keysync.daemon.health import Health, Instant
from keysync.daemon.malloc import trim_heap
from keysync.daemon.scheduler import Group
from keysync.daemon.triggers import Trigger
from keysync.sync.model import ItemRef
from keysync.sync.run import SyncRun, run_sync

# When the connections of a run have been closed (`azure.transport`), and with them most of what it took is free.
_TRIM_SECONDS: Final = 15.0


class Generation(Protocol):
    """One configuration, opened. It is closed once the last run that began in it has ended."""

    @property
    def config(self) -> Config: ...
    @property
    def accounts(self) -> tuple[Account, ...]: ...

    def make_run(self, accounts: Sequence[Account], *, busy: int) -> SyncRun:
        """A run over `accounts`; `busy` others are left out."""
        ...

    async def close(self) -> None:
        """Closes sessions and clients."""
        ...


class SkipObserver(Protocol):
    """Told how many accounts were due and take no part in a run, and why."""

    def __call__(self, *, busy: int, backing_off: int) -> None: ...


class Supervisor:
    """Starts runs when they are due and keeps the books; never raises for what becomes of one.

    An account that fails for good is left out for a while (`daemon.backoff`); one that an earlier run still waits for
    is left out and counted. While it does not lead (`leads`) no run begins at all. `monotonic` is in seconds. `trim` is called
    once no run has ended for `trim_seconds`.
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
        self._asked = False  # whether the run to come is one that somebody asked for
        self._runs: dict[asyncio.Task[None], Generation] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._requeued: set[str] = set()
        self._requeue_handle: asyncio.Handle | None = None
        self._trim = trim
        self._trim_seconds = trim_seconds
        self._trim_timer: asyncio.TimerHandle | None = None
        self._log = log or structlog.get_logger("keysync")
        account_states.settled = self._settled

    @property
    def generation(self) -> Generation:
        """The one in force."""
        return self._generation

    def due(self, groups: Iterable[Group[Account]]) -> None:
        """The start of `groups` has come: begins one run over those of their accounts that can take part."""
        if self._stop.is_set():
            return
        if not self._leads():
            # Nothing is wrong with the clockwork: it is another's turn.
            self._record_liveness()
            return
        asked, self._asked = self._asked, False
        accounts = [account for group in groups for account in group.members]
        ready = [account for account in accounts if self._backoff.ready(account.key, self._monotonic())]
        free = self._account_states.free(ready)
        busy, backing_off = len(ready) - len(free), len(accounts) - len(ready)
        if self._skipped is not None:
            self._skipped(busy=busy, backing_off=backing_off)
        if not free and accounts:
            # Nothing is wrong with the clockwork: everybody is busy, or waits to be tried again.
            self._log.info("run.skipped", busy=busy, backing_off=backing_off)
            self._record_liveness()
            return
        if not asked:
            self._since |= dict.fromkeys((account.key for account in free), self._monotonic())
        self._begin(free, busy)

    def begin(self, accounts: Sequence[Account]) -> None:
        """Begins a run over `accounts` before their start has come, as for those that were just found."""
        free = self._account_states.free(accounts)
        if free and self._may_begin():
            self._begin(free, busy=0)

    def sync_now(self) -> None:
        """Lets whoever was left out take part in the run that is to come, which is not the schedule's.

        An account that is busy may have been read before what somebody wants to be seen: it has one more run as soon as
        it is free.
        """
        self._backoff.retry_now()
        self._asked = True
        free = {account.key for account in self._account_states.free(self._generation.accounts)}
        self._requeued |= {account.key for account in self._generation.accounts} - free

    def retry_at(self, account: Account) -> float | None:
        """The monotonic time in seconds until which `account` is left out, None where it is not."""
        standing = self._backoff.states().get(account.key)
        return standing.retry_at if standing is not None and standing.retry_at > self._monotonic() else None

    def replace(self, generation: Generation) -> None:
        """Puts another configuration in force; the one before is closed when its runs have ended."""
        before, self._generation = self._generation, generation
        kept = {account.key for account in generation.accounts}
        self._backoff.keep(kept)
        self._requeued &= kept
        self._since = {key: since for key, since in self._since.items() if key in kept}
        task = asyncio.create_task(self._close_when_idle(before), name="close the configuration before")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def drain(self) -> None:
        """Waits for the runs under way, which end soon once the stop is set, then closes every generation."""
        if self._runs:
            await asyncio.wait(list(self._runs))
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._generation.close()

    async def abandon(self) -> None:
        """Ends the runs under way at once, and closes what is open: for when there is no time left."""
        self._requeued.clear()
        for task in (*self._runs, *self._closing):
            task.cancel()
        await asyncio.gather(*self._runs, *self._closing, return_exceptions=True)
        await self._generation.close()

    async def give_way(self, seconds: float) -> None:
        """Waits for the runs under way, whose stop is set, and ends those that have not ended after `seconds`."""
        runs = list(self._runs)
        if runs:
            _, late = await asyncio.wait(runs, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _begin(self, accounts: Sequence[Account], busy: int) -> None:
        generation = self._generation
        self._requeued -= {account.key for account in accounts}
        job = generation.make_run(accounts, busy=busy)
        # At once and not when the task gets its turn: another start in between must find them busy.
        turn = self._account_states.begin(_refs(job))
        task = asyncio.create_task(self._run(job, turn, generation.config), name="pass")
        self._runs[task] = generation
        task.add_done_callback(self._runs.pop)

    def _record_liveness(self) -> None:
        key = object()
        self._health.run_started(key, Instant.now(), 0.0)
        self._health.run_ended(key)

    async def _run(self, job: SyncRun, turn: object, config: Config) -> None:
        key = object()
        self._health.run_started(key, Instant.now(), _deadline(config))
        try:
            await run_sync(job)
        except Exception as error:  # noqa: BLE001  # a fault of ours in one run must not end the daemon
            self._log.error("run.error", exception=type(error).__name__, place=raised_at(error))
        finally:
            self._account_states.end(turn)
            self._health.run_ended(key)
            self._run_requeued_soon()
            self._trim_later()

    def _trim_later(self) -> None:
        if self._trim_timer is not None:
            self._trim_timer.cancel()
        self._trim_timer = asyncio.get_running_loop().call_later(self._trim_seconds, self._trim)

    def _run_requeued_soon(self) -> None:
        # In the next turn of the loop: those that become free together have one run.
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

    def _settled(self, entry: Entry) -> None:
        record = entry.worst()
        if record is None:
            self._backoff.succeeded(entry.account.key)
        else:
            interval = entry.interval.total_seconds()
            # From the schedule's own start: a run that was asked for in between must not cost two of the schedule's.
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


def _refs(job: SyncRun) -> Iterator[ItemRef]:
    """What the run is to have a result for, one after the other: for thousands of accounts together they are a burden."""
    for scope in job.scopes:
        yield from (item.ref for item in scope.items)
    yield from (one.ref for one in job.preflight.results)


def entries_of(
    config: Config, accounts: Iterable[Account], every: Callable[[Schedule], tuple[str, timedelta]]
) -> Mapping[str, Entry]:
    """The accounts as the ledger keeps them; `every` gives a schedule in words, and its interval."""
    trigger = cache(Trigger.of)  # one object for all that have the same

    def entry(account: Account) -> Entry:
        schedule = account.schedule or config.schedule
        read_only = config.read_only or account.read_only
        return Entry(account, *every(schedule), read_only=read_only, trigger=trigger(schedule))

    return {account.key: entry(account) for account in accounts}


def next_try(start: datetime | None, retry_at: float | None, now: datetime, monotonic: float) -> datetime | None:
    """When an account is tried next: at its schedule's next `start`, but not before `retry_at`."""
    if retry_at is None:
        return start
    moment = now + timedelta(seconds=retry_at - monotonic)
    return moment if start is None else max(start, moment)


def _deadline(config: Config) -> float:
    """Seconds in which even a run that meets nothing but slowness is over: collecting, then writing with every repetition."""
    timeouts = config.timeouts
    return timeouts.account.total_seconds() * 2 + timeouts.request.total_seconds() * 40


def raised_at(error: BaseException) -> str:
    """Where an exception was raised: file and line, and no value."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
