"""What serves under one configuration of the daemon, and what outlives it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Final

from keysync.azure.circuit_breaker import BreakerGuard, Breakers
from keysync.calls import CallGuard
from keysync.cli.compose import App, AppOptions, open_app
from keysync.config.settings import Account, Config
from keysync.daemon.leader import Leader
from keysync.daemon.scheduler import Group, group_by_schedule, utc_now
from keysync.daemon.triggers import Trigger, interval_of
from keysync.report.metrics import Metrics
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.redact import Redactor
from keysync.sources.filters import SkippedAccount
from keysync.sync.inventory import Inventory, preflight, static_only
from keysync.sync.items import Selection
from keysync.sync.locks import SecretLocks
from keysync.sync.observers import RunObserver
from keysync.sync.orphans import MissingCounters, OrphanSearch
from keysync.sync.run import SyncRun
from keysync.sync.shard import Shard, share_of
from keysync.targets.writes import Writes
from keysync.tracing import Tracer

_LEAST_PATIENCE: Final = 0.5


@dataclass(slots=True)
class Runtime:
    """One configuration, opened for the daemon: a `Generation`.

    `stop` gives the one for a run that begins now. `inventory` and `accounts` are those of the `shard`.
    """

    app: App
    stack: AsyncExitStack
    observer: RunObserver
    stop: Callable[[], asyncio.Event]
    streaks: MissingCounters
    shard: Shard | None = None
    told: str = ""
    inventory: Inventory = field(default_factory=lambda: Inventory(()))

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.app.config

    @property
    def accounts(self) -> tuple[Account, ...]:
        """All that runs are about."""
        return self.app.accounts

    @property
    def refused(self) -> tuple[SkippedAccount, ...]:
        """Accounts of the shard that somebody has to do something about."""
        return self.inventory.refused

    def differs(self, inventory: Inventory) -> bool:
        """Whether what is served or refused in the shard is another by `inventory`."""
        return (inventory.accounts, inventory.refused) != (self.accounts, self.refused)

    async def cover(self, inventory: Inventory) -> None:
        """Serves what `inventory` has from now on. Raises UsageError; then all stays as it was."""
        await self.app.cover(inventory.accounts)
        self.inventory = inventory

    def make_run(self, accounts: Sequence[Account], *, busy: int) -> SyncRun:
        """A run over `accounts`; orphans are searched in those of the general schedule."""
        general = self._is_general(accounts)
        search = self._orphan_search() if general else None
        return self.app.make_run(
            self.observer,
            self.stop(),
            asked=Selection(options=self.told),
            accounts=accounts,
            busy=busy,
            orphans=search,
            preflight=preflight(self.inventory) if general else None,
            patience=self._patience(accounts),
        )

    def _orphan_search(self) -> OrphanSearch | None:
        # Of all secrets there are, those whose account would be in the shard.
        return self.app.orphan_search(inventory=self.inventory, is_mine=share_of(self.shard), streaks=self.streaks)

    def _is_general(self, accounts: Sequence[Account]) -> bool:
        nobody = all(account.schedule is not None for account in self.accounts)
        return nobody or not accounts or any(account.schedule is None for account in accounts)

    def _patience(self, accounts: Sequence[Account]) -> float:
        """A twentieth of the shortest interval: one account that hangs must not make others late."""
        intervals = {interval_of(account.schedule or self.config.schedule, utc_now()) for account in accounts}
        return max(min(intervals, default=timedelta(minutes=5)).total_seconds() / 20, _LEAST_PATIENCE)

    async def close(self) -> None:
        """Closes what was opened."""
        await self.stack.aclose()


@dataclass(slots=True)
class RuntimeFactory:
    """What outlives a configuration, and opens the next one."""

    redactor: Redactor
    observer: RunObserver
    stop: Callable[[], asyncio.Event]
    metrics: Metrics
    tracer: Tracer
    breakers: Breakers
    random: Random
    leadership: Leader | None = None
    shard: Shard | None = None
    told: str = ""
    locks: SecretLocks = field(default_factory=SecretLocks)
    writes: Writes = field(default_factory=Writes)
    fingerprinter: Fingerprinter = field(default_factory=Fingerprinter)
    streaks: MissingCounters = field(default_factory=MissingCounters)

    async def open(self, config: Config) -> Runtime:
        """Opens sessions and clients for `config`. Raises UsageError; then nothing is left open."""
        self.streaks.least_seconds = interval_of(config.schedule, utc_now()).total_seconds() / 2
        async with AsyncExitStack() as stack:
            extras = AppOptions(
                self._guard, self.tracer, self.locks, self.writes, self.fingerprinter, share_of(self.shard)
            )
            app = await stack.enter_async_context(open_app(config, (), self.redactor, self.metrics.called, extras))
            opened = Runtime(app, stack, self.observer, self.stop, self.streaks, self.shard, self.told)
            await opened.cover(static_only(config, app.discovery))
            opened.stack = stack.pop_all()
            return opened
        raise AssertionError("unreachable: the block returns or raises")

    def _guard(self, keys: Sequence[str]) -> CallGuard:
        guard = BreakerGuard(self.breakers, keys, time.monotonic, utc_now)
        return guard if self.leadership is None else self.leadership.guard(guard)


def groups_of(opened: Runtime) -> tuple[Group[Account], ...]:
    """Its accounts by their schedules."""
    config = opened.config
    groups = group_by_schedule(opened.accounts, lambda account: account.schedule or config.schedule)
    general = Trigger.of(config.schedule)
    if (config.discover or opened.shard is not None) and all(group.trigger != general for group in groups):
        # A pass with nobody in it still lists the accounts, searches for orphans, and shows that the daemon lives.
        groups = (*groups, Group(general, ()))
    return groups
