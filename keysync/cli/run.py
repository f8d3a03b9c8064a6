"""`run`: the daemon, with its status page, probes, metrics and webhook."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from random import Random
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector

from keysync import logs
from keysync.azure.circuit_breaker import BreakerPolicy, Breakers
from keysync.azure.transport import open_transport
from keysync.cli.options import Options
from keysync.cli.runtime import RuntimeFactory
from keysync.cli.signals import DaemonSignals, Interruption, interruptible
from keysync.config.isolated import read_config
from keysync.config.locate import find_config
from keysync.config.model import Config
from keysync.daemon.account_state import AccountStates
from keysync.daemon.config_watch import ConfigWatch
from keysync.daemon.daemon import Daemon
from keysync.daemon.fire_times import interval_of
from keysync.daemon.leader import open_election
from keysync.daemon.malloc import limit_arenas
from keysync.daemon.scheduler import utc_now
from keysync.report.log import RunLog
from keysync.report.metrics import Metrics
from keysync.report.notify import Notifier
from keysync.report.tracing import open_tracing
from keysync.report.webhook import Webhook
from keysync.secret.redact import Redactor
from keysync.secret.signing import signer_from
from keysync.sources.shard import Shard
from keysync.sync.observers import Observers, RunObserver
from keysync.web.app import make_web_app
from keysync.web.server import open_server

_CONNECT_SECONDS: Final = 10.0
# Shares of `timeouts.shutdown`, after the daemon's own: the last events of the webhook, then the last spans.
_EVENTS, _SPANS = 0.1, 0.05


def run(options: Options) -> int:
    """Runs until SIGINT or SIGTERM; returns 0. Raises KeysyncError if the start fails."""
    limit_arenas()
    watch = ConfigWatch(find_config(options.config, os.environ), read_config)
    config = watch.read()
    redactor = Redactor()
    logs.configure(options.log_level, options.log_format, redactor.redact)
    asyncio.run(_run(options, config, watch, redactor))
    return 0


async def _run(options: Options, config: Config, watch: ConfigWatch, redactor: Redactor) -> None:
    with interruptible() as interruption:
        await serve(config, redactor, interruption, watch=watch, options_hint=options.options_hint, shard=options.shard)


async def serve(
    config: Config,
    redactor: Redactor,
    interruption: Interruption,
    *,
    watch: ConfigWatch | None = None,
    observers: Sequence[RunObserver] = (),
    announce: Callable[[str], None] = lambda _url: None,
    options_hint: str = "",
    shard: Shard | None = None,
    random: Random | None = None,
) -> None:
    """Serves `config` until `interruption`. `watch` reports later configurations; `announce` is called with the page's URL.

    `options_hint` are options for suggested commands, such as ``-c FILE``. With `shard`, only its accounts are served. Jitter
    and backoff draw from `random`.

    Raises UsageError if the start fails.
    """
    random = random or Random()  # noqa: S311  # nosec B311  # when to try again is no secret
    log = structlog.get_logger("keysync")
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.sharded(shard)
    ProcessCollector(registry=registry)  # memory, file descriptors and CPU time of the process
    account_states = AccountStates(utc_now)
    signals = DaemonSignals()
    if watch is None:
        signals.hup = partial(interruption, signal.SIGHUP)  # in the demo: its terminal was closed
    async with AsyncExitStack() as stack:
        # Until everything is closed: these signals must not kill the process while the daemon starts or ends.
        stack.enter_context(signals.installed())
        spans_seconds = config.timeouts.shutdown.total_seconds() * _SPANS
        await stack.enter_async_context(open_tracing(redactor.redact, close_seconds=spans_seconds))
        notifier = await _open_notifier(stack, config, redactor, metrics)
        observer = Observers([account_states, RunLog(), metrics, *([notifier] if notifier else []), *observers])
        breakers = Breakers(time.monotonic, random, _breaker_policy(config))
        election = open_election(config.leader_election, shard)
        factory = RuntimeFactory(
            redactor,
            observer,
            interruption.stop,
            metrics,
            breakers,
            leadership=None if election is None else election.leadership,
            shard=shard,
            options_hint=options_hint,
        )
        runtime = await factory.open(config)
        daemon = Daemon(
            runtime,
            factory.open,
            account_states=account_states,
            metrics=metrics,
            breakers=breakers,
            stop=interruption.stop,
            random=random,
            election=election,
            watch=watch,
        )
        try:
            page = open_server(make_web_app(daemon.snapshots, registry), config.listen_host, config.listen_port)
            bound = await stack.enter_async_context(page)
            accounts, vaults = len(runtime.accounts), len(config.vaults)
            shard_name = None if shard is None else str(shard)
            log.info("daemon.started", url=bound.url, accounts=accounts, vaults=vaults, shard=shard_name)
            announce(bound.url)
            with signals.calling(daemon.sync_now, daemon.reload if watch else signals.hup):
                await daemon.work()
        finally:
            await daemon.end()
    log.info("daemon.ended", signal=None if interruption.signum is None else int(interruption.signum))


async def _open_notifier(
    stack: AsyncExitStack, config: Config, redactor: Redactor, metrics: Metrics
) -> Notifier | None:
    settings = config.notify
    if settings is None:
        return None
    # Its own session, so that failures of the calls that it reports do not affect it.
    transport = await open_transport(stack, ca_bundle=None, connect_seconds=_CONNECT_SECONDS, redactor=redactor)
    secret = settings.secret.read() if settings.secret is not None else None
    webhook = Webhook(
        transport.session,
        settings.url,
        signer_from(settings.secret_file, secret, redactor),
        timeout=settings.timeout.total_seconds(),
        proxy=transport.proxy_for(settings.url),
    )
    notifier = Notifier(
        webhook,
        events=settings.events,
        installation=config.owner,
        redact=redactor.redact,
        drain_seconds=config.timeouts.shutdown.total_seconds() * _EVENTS,
        observer=metrics,
    )
    return await stack.enter_async_context(notifier)


def _breaker_policy(config: Config) -> BreakerPolicy:
    """Breakers stay open for at most the time between two runs, so that the run after the next notices a recovery."""
    policy = BreakerPolicy()
    interval = interval_of(config.schedule, utc_now()).total_seconds()
    return replace(policy, cap=min(policy.cap, interval), base=min(policy.base, interval))
