"""The daemon: schedules runs, follows the leader election, discovery and changes of the configuration, and ends in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final

import structlog

from keysync.calls import BreakerStates
from keysync.config.model import Config, Schedule
from keysync.daemon.config_watch import ConfigChange, ConfigWatch
from keysync.daemon.fire_times import interval_of
from keysync.daemon.health import Instant, Watchdog
from keysync.daemon.leader_election import LeaderElector
from keysync.daemon.scheduler import Scheduler, utc_now
from keysync.daemon.snapshot import SnapshotBuilder
from keysync.daemon.supervisor import Supervisor
from keysync.errors import ConfigError, UsageError, raised_at
from keysync.report.metrics import Metrics
from keysync.sources.discovery import Inventory
from keysync.sync.inventory import resolve
from keysync.sync.runtime import Runtime

_BEAT_SECONDS: Final = 1.0
_RUNS: Final = 0.85  # share of `timeouts.shutdown` for runs and their writes; the rest is for webhook and spans
_NEEDS_RESTART: Final = ("listen", "notify", "leader_election")


def schedules_of(runtime: Runtime) -> set[Schedule]:
    """The schedules of the accounts of `runtime`."""
    general = runtime.config.schedule
    schedules = {account.schedule or general for account in runtime.accounts}
    # A run without accounts still lists accounts, searches for orphans and shows that the daemon lives.
    return schedules | {general} if runtime.config.discover or runtime.shared.shard is not None else schedules


class Daemon:
    """The parts of the daemon at work. `snapshots` is what the page, the probes and the metrics read.

    `supervisor` runs the configuration at the start; `open_runtime` opens each later one and raises UsageError if it cannot.
    `watch` reports changes of the file. `election` is None if this replica always leads. `stop` ends the daemon.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        open_runtime: Callable[[Config], Awaitable[Runtime]],
        *,
        metrics: Metrics,
        breakers: BreakerStates,
        stop: asyncio.Event,
        election: LeaderElector | None = None,
        watch: ConfigWatch | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._open_runtime = open_runtime
        self._metrics = metrics
        self._breakers = breakers
        self._stop = stop
        self._election = election
        self._watch = watch
        self._log: Any = structlog.get_logger("keysync")
        self._watchdog = Watchdog()
        self._scheduler = Scheduler(self._due)
        self._list_now = asyncio.Event()
        self._logged: set[tuple[object, ...]] = set()  # problems of discovery that the log already names
        self._tasks: set[asyncio.Task[None]] = set()
        self._stepping_down: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self.snapshots = SnapshotBuilder(
            supervisor,
            breakers,
            lambda: self._scheduler.next_starts,
            utc_now(),
            election=election,
        )
        self._cover(supervisor.runtime)

    async def work(self, url: str) -> None:
        """Starts runs until `stop` is set. `url` is the page's, for the log."""
        runtime = self._supervisor.runtime
        accounts, vaults, shard = len(runtime.accounts), len(runtime.config.vaults), runtime.shared.shard
        shard_name = None if shard is None else str(shard)
        self._log.info("daemon.started", url=url, accounts=accounts, vaults=vaults, shard=shard_name)
        self._watchdog.start()
        self._task(self._beat)
        self._task(self._discover)
        if self._watch is not None:
            self._task(partial(self._follow, self._watch))
        self._scheduler.start(schedules_of(runtime))
        if self._election is not None:
            self._election.elected, self._election.lost = self._elected, partial(self._lost, self._election)
            self._election.start()
        await self._stop.wait()

    async def end(self) -> None:
        """Starts no new run, finishes writes under way and closes sessions. Cuts off what outlasts `timeouts.shutdown`."""
        self._stop.set()
        if self._election is not None:
            self._election.term.set()  # no write begins; this replica keeps the Lease until writes have ended
        seconds = self._supervisor.runtime.config.timeouts.shutdown.total_seconds() * _RUNS
        for task in self._tasks:
            task.cancel()
        try:
            async with asyncio.timeout(seconds):
                self._scheduler.close()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                await self._supervisor.end_runs()
                await self._supervisor.close()
                await asyncio.gather(*self._stepping_down)
            if self._election is not None and self._leads():
                await self._election.release()
        except TimeoutError:
            self._log.warning("daemon.shutdown_timeout", seconds=seconds)
            await self._supervisor.end_runs(0)
            await self._supervisor.close()
        finally:
            if self._election is not None:
                await self._election.close()
            await asyncio.gather(*self._stepping_down)
            self._watchdog.close()

    def sync_now(self) -> None:
        """Starts a run over every account. Accounts that back off and open circuit breakers take part."""
        self._log.info("daemon.sync_now")
        self._supervisor.sync_now()
        self._breakers.retry_now()
        self._scheduler.trigger_now()

    def reload(self) -> None:
        """Reads the configuration again, and puts it in force if it is valid."""
        if self._watch is not None:
            self._task(partial(self._read_again, self._watch))

    def _task(self, work: Callable[[], Awaitable[None]]) -> None:
        async def logging_errors() -> None:
            with self._logged_errors("daemon"):
                await work()

        task = asyncio.create_task(logging_errors())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextmanager
    def _logged_errors(self, part: str) -> Generator[None]:
        """Logs any exception of the block, without values, so that it ends neither the daemon nor the loop around it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # a bug in one part must not end the others
            self._log.error("daemon.error", part=part, exception=type(error).__name__, place=raised_at(error))

    async def _beat(self) -> None:
        while True:
            self._supervisor.health.beat(Instant.now())
            self._watchdog.beat()
            await asyncio.sleep(_BEAT_SECONDS)

    def _due(self, schedules: set[Schedule]) -> None:
        if self._leads():
            self._list_now.set()
        runtime = self._supervisor.runtime
        general = runtime.config.schedule
        self._supervisor.due([account for account in runtime.accounts if (account.schedule or general) in schedules])

    # Leader election

    def _leads(self) -> bool:
        return self._election is None or self._election.leads()

    def _elected(self) -> None:
        self.snapshots.elected()
        if not self._stop.is_set():
            self.sync_now()

    def _lost(self, election: LeaderElector) -> None:
        self.snapshots.changed()
        task = asyncio.create_task(self._step_down(election), name="step down as leader")
        self._stepping_down.add(task)
        task.add_done_callback(self._stepping_down.discard)

    async def _step_down(self, election: LeaderElector) -> None:
        await self._supervisor.end_runs(election.grace())
        if not election.leads():
            # This replica does not see the changes of the new leader, so its own knowledge may be stale later.
            self._supervisor.account_states.forget()
            runtime = self._supervisor.runtime
            if runtime.shared.streaks is not None:
                runtime.shared.streaks.forget()
            runtime.inventory = replace(runtime.inventory, complete=not runtime.config.discover)

    # Discovery

    async def _discover(self) -> None:
        """Lists accounts whenever a run begins. New accounts have a run at once, and no run waits for a listing."""
        while True:
            await self._list_now.wait()
            self._list_now.clear()
            runtime = self._supervisor.runtime
            if not runtime.config.discover:
                continue
            with self._logged_errors("discovery"):
                inventory = await resolve(runtime.discovery, self._stop, self._logged)
                async with self._reloading:
                    # A standby that is elected later must not take an old listing for complete.
                    if self._supervisor.runtime is runtime and self._leads():
                        await self._apply(runtime, inventory)

    async def _apply(self, runtime: Runtime, inventory: Inventory) -> None:
        if (inventory.accounts, inventory.refused) != (runtime.accounts, runtime.inventory.refused):
            before = {account.key for account in runtime.accounts}
            try:
                await runtime.cover(inventory)
            except UsageError as error:
                self._refuse(str(error))
                return
            self._cover(runtime)
            found = [account for account in runtime.accounts if account.key not in before]
            self._log.info("discovery.changed", accounts=len(runtime.accounts), found=len(found))
            self._supervisor.begin(found)
        runtime.inventory = inventory
        self.snapshots.changed()

    # Another configuration

    async def _read_again(self, watch: ConfigWatch) -> None:
        try:
            change: ConfigChange = await asyncio.to_thread(watch.read)
        except ConfigError as error:
            change = error
        await self._take(change)

    async def _follow(self, watch: ConfigWatch) -> None:
        while True:
            await asyncio.sleep(watch.interval)
            with self._logged_errors("reload"):
                await self._take(await asyncio.to_thread(watch.check))

    async def _take(self, change: ConfigChange | None) -> None:
        if isinstance(change, Config):
            await self._replace(change)
        elif isinstance(change, ConfigError):
            self._refuse(str(change))
        elif change == "restored":
            self._log.info("config.restored")
            self._show_error(None)

    def _refuse(self, reason: str) -> None:
        self._log.error("config.refused", reason=reason, hint="the previous configuration stays in force")
        self._metrics.reloaded(succeeded=False)
        self._show_error(reason)

    def _show_error(self, reason: str | None) -> None:
        self.snapshots.config_error = reason
        self.snapshots.changed()

    async def _replace(self, config: Config) -> None:
        async with self._reloading:
            before = self._supervisor.runtime.config
            try:
                runtime = await self._open(config)
            except UsageError as error:
                self._refuse(str(error))
                return
            self._cover(runtime)
            # Breakers of credentials start over: their names count credentials in an order that a reload may change.
            self._breakers.keep([f"vault:{name}" for name in config.vaults])
            self._supervisor.health.replace(schedules_of(runtime), Instant.now())
            self._metrics.reloaded(succeeded=True)
            self._show_error(None)
            restart = [name for name in _NEEDS_RESTART if getattr(before, name) != getattr(config, name)]
            self._log.info("config.reloaded", accounts=len(runtime.accounts), needs_restart=restart)
            # A fix in the file takes effect now, not at the next fire time.
            self.sync_now()

    async def _open(self, config: Config) -> Runtime:
        """Opens `config` and lists its accounts, so that the state of discovered accounts outlives a reload. Raises UsageError."""
        runtime = await self._open_runtime(config)
        try:
            runtime.discovery.inherit(self._supervisor.runtime.discovery)
            if config.discover and self._leads():
                await runtime.cover(await resolve(runtime.discovery, self._stop, self._logged))
        except BaseException:
            await runtime.close()
            raise
        return runtime

    def _cover(self, runtime: Runtime) -> None:
        """Makes `runtime` current, with its present accounts."""
        self._supervisor.replace(runtime)
        self._scheduler.replace(schedules_of(runtime))
        config, entries = runtime.config, self._supervisor.account_states.entries.values()
        interval = interval_of(config.schedule, utc_now())
        if runtime.shared.streaks is not None:
            runtime.shared.streaks.least_seconds = interval.total_seconds() / 2
        self._metrics.scheduled(min((entry.interval for entry in entries), default=interval).total_seconds())
        self._metrics.credentials(runtime.credential_expiries)
        self._metrics.cover((entry.account.resource_id for entry in entries), config.vaults)
        self.snapshots.changed()
