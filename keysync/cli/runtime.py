"""Opens a configuration for the daemon, with the parts that outlive it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from keysync.azure.circuit_breaker import Breakers
from keysync.cli.compose import AppOptions, open_app
from keysync.config.model import Config
from keysync.daemon.fire_times import interval_of
from keysync.daemon.leader import Leader
from keysync.daemon.runtime import Runtime
from keysync.daemon.scheduler import utc_now
from keysync.report.metrics import Metrics
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.redact import Redactor
from keysync.sources.shard import Shard, share_of
from keysync.sync.inventory import static_only
from keysync.sync.locks import SecretLocks
from keysync.sync.observers import RunObserver
from keysync.sync.orphans import MissingCounters
from keysync.targets.recent_writes import RecentWrites


@dataclass(slots=True)
class RuntimeFactory:
    """Opens one configuration after the other. The fields outlive each of them."""

    redactor: Redactor
    observer: RunObserver
    stop: asyncio.Event
    metrics: Metrics
    breakers: Breakers
    leadership: Leader | None = None
    shard: Shard | None = None
    options_hint: str = ""
    locks: SecretLocks = field(default_factory=SecretLocks)
    writes: RecentWrites = field(default_factory=RecentWrites)
    fingerprinter: Fingerprinter = field(default_factory=Fingerprinter)
    streaks: MissingCounters = field(default_factory=MissingCounters)

    async def open(self, config: Config) -> Runtime:
        """Opens sessions and clients for `config`. Raises UsageError and then leaves nothing open."""
        self.streaks.least_seconds = interval_of(config.schedule, utc_now()).total_seconds() / 2
        options = AppOptions(
            is_mine=share_of(self.shard),
            breakers=self.breakers,
            leader_admission=None if self.leadership is None else self.leadership.admission,
            locks=self.locks,
            writes=self.writes,
            fingerprinter=self.fingerprinter,
        )
        async with AsyncExitStack() as stack:
            app = await stack.enter_async_context(open_app(config, (), self.redactor, self.metrics.called, options))
            inventory = static_only(config, app.discovery)
            await app.cover(inventory.accounts)
            return Runtime(
                app,
                inventory,
                self.observer,
                self.stop,
                self.leadership,
                self.streaks,
                self.shard,
                self.options_hint,
                stack.pop_all(),
            )
        raise AssertionError("unreachable: the block returns or raises")
