"""`run`: the daemon put together, from the first run to the last write."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector

from keysync import logs
from keysync.azure.circuit_breaker import BreakerPolicy, Breakers
from keysync.azure.transport import open_transport
from keysync.cli.options import Options
from keysync.cli.runtime import Runtime, RuntimeFactory, groups_of
from keysync.cli.signals import Interruption, interruptible
from keysync.config.isolated import read_config
from keysync.config.locate import find_config
from keysync.config.settings import Account, Config, Schedule
from keysync.daemon.account_state import AccountStates
from keysync.daemon.health import Health, Instant, Watchdog
from keysync.daemon.leader import OpenElection, open_election
from keysync.daemon.malloc import limit_arenas
from keysync.daemon.reload import Changed, ConfigChange, ConfigWatch, Lost, Refused, Restored, check_not_special
from keysync.daemon.scheduler import Group, Scheduler, utc_now
from keysync.daemon.snapshot import SnapshotBuilder, schedule_text
from keysync.daemon.supervisor import Supervisor, entries_of, raised_at
from keysync.daemon.triggers import interval_of
from keysync.errors import ConfigError, UsageError
from keysync.report.log import RunLog
from keysync.report.metrics import Metrics
from keysync.report.notify import Notifier
from keysync.report.tracing import open_tracing
from keysync.report.webhook import Webhook
from keysync.secret.redact import Redactor
from keysync.secret.signing import signer_from
from keysync.sync.inventory import Inventory, resolve
from keysync.sync.observers import Observers, RunObserver
from keysync.sync.shard import Shard
from keysync.web.app import make_web_app
from keysync.web.server import open_server

_BEAT_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 10.0
# Shares of `timeouts.shutdown`, one after the other: runs and their writes, the webhook's last events, the last spans.
_RUNS, _EVENTS, _SPANS = 0.85, 0.1, 0.05
_NEEDS_RESTART: Final = ("listen", "notify", "leader_election")


def run(options: Options) -> int:
    """Runs until SIGINT or SIGTERM; returns 0. Raises KeysyncError where the start fails."""
    limit_arenas()
    path = find_config(options.config, os.environ)
    watch = ConfigWatch(path, lambda place: read_config(check_not_special(place)))
    config = watch.read()
    redactor = Redactor()
    logs.configure(options.log_level, options.log_format, redactor.redact)
    asyncio.run(_run(options, config, watch, redactor))
    return 0


async def _run(options: Options, config: Config, watch: ConfigWatch, redactor: Redactor) -> None:
    with interruptible() as interruption:
        await serve(config, redactor, interruption, watch=watch, told=options.options_hint, shard=options.shard)


async def serve(
    config: Config,
    redactor: Redactor,
    interruption: Interruption,
    *,
    watch: ConfigWatch | None = None,
    observers: Sequence[RunObserver] = (),
    announce: Callable[[str], None] = lambda _url: None,
    told: str = "",
    shard: Shard | None = None,
    random: Random | None = None,
) -> None:
    """The daemon over `config` until `interruption`; `watch` brings later configurations, `announce` is told the page's URL.

    `told` are options, such as ``-c FILE``, for the commands that are told. Only the accounts of `shard` are served. `random`
    is what jitter and backoff draw from.

    Raises UsageError where the start fails.
    """
    random = random or Random()  # noqa: S311  # nosec B311  # when to try again is no secret
    log = structlog.get_logger("keysync")
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.divided(shard)
    ProcessCollector(registry=registry)  # memory, descriptors, time: what any process tells
    account_states = AccountStates(utc_now)
    grace = config.timeouts.shutdown.total_seconds()
    asked = SignalHandlers()
    async with AsyncExitStack() as stack:
        # For as long as anything is open: before the daemon works and while it ends, they must not kill the process.
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGUSR1: lambda: asked.sync_now(),  # noqa: PLW0108  # as it is then
            # Without a file there is nothing to reload: it is the demo, whose terminal has been closed.
            signal.SIGHUP: (lambda: asked.reload()) if watch else (lambda: interruption(signal.SIGHUP)),  # noqa: PLW0108  # as it is then
        }
        stack.enter_context(_signals(handlers))
        tracer = await stack.enter_async_context(open_tracing(redactor.redact, close_seconds=grace * _SPANS))
        notifier = await _open_notifier(stack, config, redactor, metrics)
        observer = Observers([account_states, RunLog(), metrics, *([notifier] if notifier else []), *observers])
        breakers = Breakers(time.monotonic, random, _breaker_policy(config))
        election = open_election(config.leader_election, shard)
        leadership = None if election is None else election.leadership

        def stop() -> asyncio.Event:
            return interruption.stop if leadership is None else leadership.term

        factory = RuntimeFactory(redactor, observer, stop, metrics, tracer, breakers, random, leadership, shard, told)
        opened = await factory.open(config)
        daemon = _Daemon(factory, opened, account_states, interruption, election, log)
        try:
            bound = await stack.enter_async_context(
                open_server(make_web_app(daemon.board, registry), config.listen_host, config.listen_port)
            )
            log.info(
                "daemon.started",
                url=bound.url,
                accounts=len(opened.accounts),
                vaults=len(config.vaults),
                shard=None if shard is None else str(shard),
            )
            announce(bound.url)
            await daemon.work(watch, asked)
        finally:
            await daemon.end()
    log.info("daemon.ended", signal=None if interruption.signum is None else int(interruption.signum))


async def _open_notifier(
    stack: AsyncExitStack, config: Config, redactor: Redactor, metrics: Metrics
) -> Notifier | None:
    wanted = config.notify
    if wanted is None:
        return None
    # A session of its own: what tells of failures must not share the fate of the calls that fail.
    transport = await open_transport(stack, ca_bundle=None, connect_seconds=_CONNECT_SECONDS, redactor=redactor)
    text = wanted.secret.read() if wanted.secret is not None else None
    webhook = Webhook(
        transport.session,
        wanted.url,
        signer_from(wanted.secret_file, text, redactor),
        timeout=wanted.timeout.total_seconds(),
        proxy=transport.proxy_for(wanted.url),
    )
    notifier = Notifier(
        webhook,
        wanted=wanted.events,
        installation=config.owner,
        redact=redactor.redact,
        drain_seconds=config.timeouts.shutdown.total_seconds() * _EVENTS,
        observer=metrics,
    )
    return await stack.enter_async_context(notifier)


def _nothing() -> None:
    """The first run is about to start, or no other will."""


@dataclass(slots=True)
class SignalHandlers:
    """What SIGUSR1 and SIGHUP call."""

    sync_now: Callable[[], None] = _nothing
    reload: Callable[[], None] = _nothing


class _Daemon:
    """The parts at work: clock, supervisor, health, and what signals and a changed file ask for."""

    def __init__(
        self,
        factory: RuntimeFactory,
        opened: Runtime,
        account_states: AccountStates,
        interruption: Interruption,
        election: OpenElection | None,
        log: Any,  # noqa: ANN401  # structlog's proxy has no type of its own
    ) -> None:
        self._factory = factory
        self._account_states = account_states
        self._interruption = interruption
        self._election = election
        self._giving_way: set[asyncio.Task[None]] = set()
        self._log = log
        self._opened = opened
        groups = groups_of(opened)
        self._health = Health([group.trigger for group in groups], Instant.now())
        self._watchdog = Watchdog()
        self._supervisor = Supervisor(
            opened,
            account_states,
            self._health,
            stop=interruption.stop,
            leads=self._leads,
            random=factory.random,
            skipped=factory.metrics.skipped,
        )
        self._scheduler: Scheduler[Account] = Scheduler(groups, self._due, random=factory.random)
        self._list_now = asyncio.Event()
        self._told: set[tuple[object, ...]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self._ended = False
        self.board = SnapshotBuilder(
            account_states,
            self._supervisor,
            self._health,
            factory.breakers,
            lambda: self._scheduler.next_starts,
            datetime.now(UTC),
            leadership=None if election is None else election.leadership,
            shard=None if factory.shard is None else str(factory.shard),
        )
        self._cover(opened)

    async def work(self, watch: ConfigWatch | None, asked: SignalHandlers) -> None:
        """Runs, until the stop; `asked` is answered meanwhile."""
        self._watchdog.start()
        self._task(self._beat())
        self._task(self._discover())
        if watch is not None:
            self._task(self._follow(watch))
        self._scheduler.start()
        asked.sync_now, asked.reload = self._sync_now, lambda: self._hang_up(watch)
        if self._election is not None:
            leadership = self._election.leadership
            leadership.elected, leadership.lost = self._elected, self._lost
            self._election.elector.start()
        try:
            await self._interruption.stop.wait()
        finally:
            asked.sync_now = asked.reload = _nothing

    async def end(self) -> None:
        """No new run; writes under way finish; sessions close. Within `timeouts.shutdown`, or it is cut short."""
        if self._ended:
            return
        self._ended = True
        self._interruption.stop.set()
        if self._election is not None:
            self._election.leadership.term.set()  # no write begins; the lease is held until those under way have ended
        seconds = self._supervisor.generation.config.timeouts.shutdown.total_seconds() * _RUNS
        for task in self._tasks:
            task.cancel()
        try:
            async with asyncio.timeout(seconds):
                await self._scheduler.close()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                await self._supervisor.drain()
                await asyncio.gather(*self._giving_way)
            await self._release()
        except TimeoutError:
            self._log.warning("daemon.shutdown_timeout", seconds=seconds)
            await self._supervisor.abandon()
        finally:
            if self._election is not None:
                self._election.abandon()
            await asyncio.gather(*self._giving_way)
            self._watchdog.close()

    def _task(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        # Retrieved here: asyncio itself would print an exception with its values.
        if not task.cancelled() and task.exception() is not None:
            with self._surviving("daemon"):
                task.result()

    @contextmanager
    def _surviving(self, part: str) -> Iterator[None]:
        """Whatever goes wrong within ends neither the daemon nor the loop around it, and is told without a value."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # a fault of ours in one part must not end the others
            self._log.error("daemon.error", part=part, exception=type(error).__name__, place=raised_at(error))

    async def _beat(self) -> None:
        while True:
            self._health.beat(Instant.now())
            self._watchdog.beat()
            await asyncio.sleep(_BEAT_SECONDS)

    def _sync_now(self) -> None:
        self._log.info("daemon.sync_now")
        self._supervisor.sync_now()
        self._factory.breakers.retry_now()
        self._scheduler.trigger_now()

    def _due(self, groups: tuple[Group[Account], ...]) -> None:
        if self._leads():
            self._list_now.set()
        self._supervisor.due(groups)

    # The lead

    def _leads(self) -> bool:
        return self._election is None or self._election.leadership.leads()

    def _elected(self) -> None:
        self.board.elected()
        if not self._ended:
            self._sync_now()

    def _lost(self) -> None:
        self.board.changed()
        task = asyncio.create_task(self._give_way(), name="give way to another leader")
        self._giving_way.add(task)
        task.add_done_callback(self._giving_way.discard)

    async def _give_way(self) -> None:
        if self._election is None:
            return
        await self._supervisor.end_runs(self._election.leadership.grace())
        if not self._leads():
            # What others do from now on is not seen here: nothing that was known may be held for true later.
            self._account_states.forget()
            self._factory.streaks.forget()
            opened = self._opened
            opened.inventory = replace(opened.inventory, complete=not opened.config.discover)

    async def _release(self) -> None:
        if self._election is not None and self._leads():
            await self._election.release()

    # Accounts that are found

    async def _discover(self) -> None:
        """Lists anew whenever a run begins; what is new has a run at once, and no run waits for a listing."""
        while True:
            await self._list_now.wait()
            self._list_now.clear()
            opened = self._opened
            if not opened.config.discover:
                continue
            with self._surviving("discovery"):
                inventory = await resolve(opened.config, opened.app.discovery, self._interruption.stop, self._told)
                async with self._reloading:
                    # A standby that is elected later must not take what was found long before for all that there is.
                    if self._opened is opened and self._leads():
                        await self._covered(opened, inventory)

    async def _covered(self, opened: Runtime, inventory: Inventory) -> None:
        if opened.differs(inventory):
            before = {account.key for account in opened.accounts}
            try:
                await opened.cover(inventory)
            except UsageError as error:
                self._refuse(str(error))
                return
            self._cover(opened)
            self._scheduler.replace(groups_of(opened))
            found = [account for account in opened.accounts if account.key not in before]
            self._log.info("discovery.changed", accounts=len(opened.accounts), found=len(found))
            self._supervisor.begin(found)
        opened.inventory = inventory
        self._tell_completeness(opened)

    # Another configuration

    def _hang_up(self, watch: ConfigWatch | None) -> None:
        if watch is None:
            self._sync_now()
        else:
            self._task(self._read_again(watch))

    async def _read_again(self, watch: ConfigWatch) -> None:
        try:
            config = await asyncio.to_thread(watch.read)
        except ConfigError as error:
            self._refuse(str(error))
        else:
            await self._take(config)

    async def _follow(self, watch: ConfigWatch) -> None:
        async for change in watch.changes():
            with self._surviving("reload"):
                await self._followed(change)

    async def _followed(self, change: ConfigChange) -> None:
        match change:
            case Changed(config):
                await self._take(config)
            case Refused(findings):
                self._refuse("\n".join(str(finding) for finding in findings))
            case Lost(path, reason):
                self._refuse(f"{path}: {reason}")
            case Restored():
                self._log.info("config.restored")
                self._clear_error()

    def _refuse(self, told: str) -> None:
        self._log.error("config.refused", reason=told, hint="the configuration before stays in force")
        self._factory.metrics.reloaded(taken=False)
        self.board.config_error = told
        self.board.changed()

    def _clear_error(self) -> None:
        self.board.config_error = None
        self.board.changed()

    async def _take(self, config: Config) -> None:
        async with self._reloading:
            before = self._supervisor.generation.config
            try:
                opened = await self._factory.open(config)
                await self._list_first(opened)
            except UsageError as error:
                self._refuse(str(error))
                return
            self._opened = opened
            self._supervisor.replace(opened)
            self._cover(opened)
            # Credentials are told apart by their order, which a reload may change: they begin anew.
            self._factory.breakers.keep([f"vault:{name}" for name in config.vaults])
            groups = groups_of(opened)
            self._health.replace([group.trigger for group in groups], Instant.now())
            self._scheduler.replace(groups)
            self._factory.metrics.reloaded(taken=True)
            self._clear_error()
            restart = [name for name in _NEEDS_RESTART if getattr(before, name) != getattr(config, name)]
            self._log.info("config.reloaded", accounts=len(opened.accounts), needs_restart=restart)
            # What was mended in the file should not wait for its turn.
            self._sync_now()

    async def _list_first(self, opened: Runtime) -> None:
        """So that what is known of accounts outlives a reload, they are listed before it is in force."""
        opened.app.discovery.inherit(self._opened.app.discovery)
        if opened.config.discover and self._leads():
            inventory = await resolve(opened.config, opened.app.discovery, self._interruption.stop, self._told)
            await opened.cover(inventory)

    def _cover(self, opened: Runtime) -> None:
        config, now = opened.config, utc_now()

        # Once a schedule, not once an account: a crontab takes a while to tell.
        @cache
        def every(schedule: Schedule) -> tuple[str, timedelta]:
            return schedule_text(schedule), interval_of(schedule, now)

        refused = [one.account for one in opened.refused if one.account is not None]
        accounts = [*opened.accounts, *refused]
        entries = entries_of(config, accounts, every)
        self._account_states.cover(entries)
        intervals = (entry.interval for entry in entries.values())
        self._factory.metrics.scheduled(min(intervals, default=every(config.schedule)[1]).total_seconds())
        self._factory.metrics.credentials(opened.app.credential_expiries)
        self._factory.metrics.cover((account.resource_id for account in accounts), config.vaults)
        self.board.credentials = opened.app.credential_names
        self._tell_completeness(opened)

    def _tell_completeness(self, opened: Runtime) -> None:
        self.board.discovery_complete = opened.inventory.complete if opened.config.discover else None
        self.board.unserved = opened.inventory.unserved
        self.board.changed()


def _breaker_policy(config: Config) -> BreakerPolicy:
    """Never open for longer than the time between two runs: what is well again is noticed by the next but one at the latest."""
    policy = BreakerPolicy()
    interval = interval_of(config.schedule, utc_now()).total_seconds()
    return replace(policy, cap=min(policy.cap, interval), base=min(policy.base, interval))


@contextmanager
def _signals(handlers: dict[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for signum, handler in handlers.items():
        loop.add_signal_handler(signum, handler)
    try:
        yield
    finally:
        for signum in handlers:
            with suppress(RuntimeError):
                loop.remove_signal_handler(signum)
