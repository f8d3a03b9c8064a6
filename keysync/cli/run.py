"""`run`: the daemon, with its status page, probes, metrics and webhook."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from random import Random

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector

from keysync import logs
from keysync.azure.circuit_breaker import BreakerPolicy, Breakers
from keysync.azure.transport import open_transport
from keysync.calls import CallObserver
from keysync.cli.compose import CONNECT_SECONDS, open_clients, open_runtime
from keysync.cli.options import Options
from keysync.cli.signals import Interruption, handled, interruptible
from keysync.config.formats import split_listen
from keysync.config.isolated import find_config, read_config
from keysync.config.model import Config
from keysync.daemon.account_state import AccountStates
from keysync.daemon.config_watch import ConfigWatch
from keysync.daemon.daemon import Daemon, schedules_of
from keysync.daemon.fire_times import interval_of
from keysync.daemon.health import Health, Instant
from keysync.daemon.leader_election import open_election
from keysync.daemon.scheduler import utc_now
from keysync.daemon.supervisor import Supervisor
from keysync.files import read_secret
from keysync.report.log import RunLog
from keysync.report.metrics import Metrics
from keysync.report.notify import Notifier
from keysync.report.tracing import open_tracing
from keysync.report.webhook import Webhook
from keysync.secret.redact import Redactor
from keysync.secret.signing import Signer
from keysync.secret.value import SecretValue
from keysync.sync.items import Selection
from keysync.sync.orphans import MissingCounters
from keysync.sync.runtime import Runtime, Shared
from keysync.web.app import make_web_app
from keysync.web.server import open_server

# Shares of `timeouts.shutdown`, after the daemon's own: the last events of the webhook, then the last spans.
_EVENTS, _SPANS = 0.1, 0.05


def run(options: Options) -> None:
    """Runs until SIGINT or SIGTERM. Raises KeysyncError if the start fails."""
    watch = ConfigWatch(find_config(options.config, os.environ), read_config)
    config, redactor = watch.read(), Redactor()
    logs.configure(options.log_level or "info", options.log_format, redactor.redact)
    shared = Shared(redactor, selection=Selection(options=options.options_hint), shard=options.shard)

    async def run_daemon() -> None:
        with interruptible() as interruption:
            await serve(config, shared, interruption, watch=watch)

    asyncio.run(run_daemon())


async def serve(
    config: Config,
    shared: Shared,
    interruption: Interruption,
    *,
    watch: ConfigWatch | None = None,
    announce: Callable[[str], None] = lambda _url: None,
    random: Random | None = None,
) -> None:
    """Serves `config` until `interruption`. `watch` reports later configurations; `announce` is called with the page's URL.

    `shared.observers` are among the observers of the runs. Jitter and backoff draw from `random`. Raises UsageError if the start
    fails.
    """
    daemon: Daemon | None = None

    def on_signal(signum: int) -> None:
        if watch is None and signum == signal.SIGHUP:
            interruption(signum)  # the demo's terminal was closed
        elif daemon is not None and not interruption.stop.is_set():
            (daemon.sync_now if signum == signal.SIGUSR1 else daemon.reload)()

    async with AsyncExitStack() as stack:
        # Until everything is closed: these signals must not kill the process while the daemon starts or ends.
        stack.enter_context(handled(on_signal, signal.SIGUSR1, signal.SIGHUP))
        spans_seconds = config.timeouts.shutdown.total_seconds() * _SPANS
        await stack.enter_async_context(open_tracing(shared.redactor.redact, close_seconds=spans_seconds))
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, file descriptors and CPU time of the process
        metrics = Metrics(registry)
        random = random or Random()  # noqa: S311  # nosec B311  # when to try again is no secret
        daemon = await _open_daemon(stack, config, shared, interruption, metrics, watch, random)
        try:
            page = open_server(make_web_app(daemon.snapshots.status, registry), *split_listen(config.listen))
            bound = await stack.enter_async_context(page)
            announce(bound.url)
            await daemon.work(bound.url)
        finally:
            await daemon.end()
    signum = None if interruption.signum is None else int(interruption.signum)
    structlog.get_logger("keysync").info("daemon.ended", signal=signum)


async def _open_daemon(
    stack: AsyncExitStack,
    config: Config,
    shared: Shared,
    interruption: Interruption,
    metrics: Metrics,
    watch: ConfigWatch | None,
    random: Random,
) -> Daemon:
    """The daemon with its first configuration open. Raises UsageError."""
    metrics.sharded(shared.shard)
    account_states = AccountStates(utc_now)
    notifier = await _open_notifier(stack, config, shared.redactor, metrics)
    election = open_election(config.leader_election, shared.shard)
    if election is not None:
        stack.push_async_callback(election.close)
    shared = replace(
        shared,
        observers=(account_states, RunLog(), metrics, *([notifier] if notifier else []), *shared.observers),
        stop=lambda: interruption.stop if election is None else election.term,
        streaks=MissingCounters(),
    )
    # Breakers stay open for at most the time between two runs, so that the run after the next notices a recovery.
    policy, interval = BreakerPolicy(), interval_of(config.schedule, utc_now()).total_seconds()
    policy = replace(policy, cap=min(policy.cap, interval), base=min(policy.base, interval))
    breakers = Breakers(time.monotonic, random, policy)
    if election is not None:
        breakers.check = election.check

    open_config = partial(_open_config, shared, metrics.called, breakers)
    runtime = await open_config(config)
    supervisor = Supervisor(
        runtime,
        account_states,
        Health(schedules_of(runtime), Instant.now()),
        metrics,
        may_begin=lambda: not interruption.stop.is_set() and (election is None or election.leads()),
        random=random,
    )
    stop = interruption.stop
    return Daemon(
        supervisor, open_config, metrics=metrics, breakers=breakers, stop=stop, election=election, watch=watch
    )


async def _open_config(shared: Shared, observe: CallObserver, breakers: Breakers, config: Config) -> Runtime:
    """Opens `config` for the accounts under `accounts`. Raises UsageError and then leaves nothing open."""
    stack = AsyncExitStack()
    try:
        clients = await open_clients(stack, config, shared.redactor, observe=observe, breakers=breakers)
        runtime = await open_runtime(stack, clients, shared)
        await runtime.cover(runtime.inventory)
    except BaseException:
        await stack.aclose()
        raise
    return runtime


async def _open_notifier(
    stack: AsyncExitStack, config: Config, redactor: Redactor, metrics: Metrics
) -> Notifier | None:
    settings = config.notify
    if settings is None:
        return None
    # Its own session, so that failures of the calls that it reports do not affect it.
    transport = await open_transport(stack, ca_bundle=None, connect_seconds=CONNECT_SECONDS, redactor=redactor)
    if settings.secret_file is not None:
        secret = read_secret(settings.secret_file, "notify.secret_file")
    else:
        secret = settings.secret.read() if settings.secret else ""
    signer = Signer(redactor.remember(SecretValue(secret)))
    proxy, timeout = transport.proxies.proxy_for(settings.url), settings.timeout.total_seconds()
    notifier = Notifier(
        Webhook(transport.session, settings.url, signer, timeout=timeout, proxy=proxy),
        events=settings.events,
        installation=config.owner,
        redact=redactor.redact,
        drain_seconds=config.timeouts.shutdown.total_seconds() * _EVENTS,
        count=metrics.notified,
    )
    return await stack.enter_async_context(notifier)
