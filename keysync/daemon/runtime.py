"""One configuration of the daemon with everything open: which accounts it serves, when, and the runs over them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from keysync.config.model import Account, Config, Schedule
from keysync.daemon.fire_times import interval_of
from keysync.daemon.leader import Leader
from keysync.daemon.scheduler import group_by_schedule, utc_now
from keysync.sources.discovery import Discovery
from keysync.sources.shard import Shard, share_of
from keysync.sync.inventory import Inventory, preflight
from keysync.sync.items import Selection
from keysync.sync.observers import RunObserver
from keysync.sync.orphans import MissingCounters
from keysync.sync.run import SyncRun
from keysync.sync.run_factory import RunFactory

_LEAST_PATIENCE: Final = 0.5


class OpenApp(Protocol):
    """The sessions and clients of one configuration: an `App` of the command line."""

    @property
    def config(self) -> Config: ...
    @property
    def accounts(self) -> tuple[Account, ...]: ...
    @property
    def discovery(self) -> Discovery: ...
    @property
    def runs(self) -> RunFactory: ...
    @property
    def credential_names(self) -> tuple[str, ...]: ...
    @property
    def credential_expiries(self) -> Mapping[str, datetime]: ...

    async def cover(self, accounts: Sequence[Account]) -> None:
        """Opens the clients that `accounts` need. Raises UsageError."""
        ...


@dataclass(slots=True)
class Runtime:
    """One configuration, opened: a `Generation`.

    `stop` ends every run; with an election, `leadership` also ends those of its term. `inventory` holds the accounts of the
    `shard`. `options_hint` are options for suggested commands. `streaks` outlive the configuration. `stack` closes what is open.
    """

    app: OpenApp
    inventory: Inventory
    observer: RunObserver
    stop: asyncio.Event
    leadership: Leader | None
    streaks: MissingCounters
    shard: Shard | None
    options_hint: str
    stack: AsyncExitStack

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.app.config

    @property
    def accounts(self) -> tuple[Account, ...]:
        """The accounts that runs serve."""
        return self.app.accounts

    @property
    def groups(self) -> dict[Schedule, list[Account]]:
        """The accounts by schedule."""
        schedule = self.config.schedule
        groups = group_by_schedule(self.accounts, lambda account: account.schedule or schedule)
        if self.config.discover or self.shard is not None:
            # A run without accounts still lists accounts, searches for orphans and shows that the daemon lives.
            groups.setdefault(schedule, [])
        return groups

    def differs(self, inventory: Inventory) -> bool:
        """Whether `inventory` serves or refuses other accounts than the current one."""
        return (inventory.accounts, inventory.refused) != (self.accounts, self.inventory.refused)

    async def cover(self, inventory: Inventory) -> None:
        """Serves the accounts of `inventory` from now on. Raises UsageError and then changes nothing."""
        await self.app.cover(inventory.accounts)
        self.inventory = inventory

    def make_run(self, accounts: Sequence[Account], *, busy: int) -> SyncRun:
        """A run over `accounts`. Runs of the general schedule also search for orphans."""
        runs, general = self.app.runs, self._is_general(accounts)
        # Only secrets whose account belongs to the shard.
        is_mine = share_of(self.shard)
        return runs.make_run(
            accounts,
            self.observer,
            self.stop if self.leadership is None else self.leadership.term,
            selection=Selection(options=self.options_hint),
            busy=busy,
            orphans=runs.orphan_search(self.inventory, is_mine=is_mine, streaks=self.streaks) if general else None,
            preflight=preflight(self.inventory) if general else None,
            patience=self._patience(accounts),
        )

    def _is_general(self, accounts: Sequence[Account]) -> bool:
        none_is = all(account.schedule is not None for account in self.accounts)
        return none_is or not accounts or any(account.schedule is None for account in accounts)

    def _patience(self, accounts: Sequence[Account]) -> float:
        """A twentieth of the shortest interval in seconds, so that one account that hangs does not delay others."""
        intervals = {interval_of(account.schedule or self.config.schedule, utc_now()) for account in accounts}
        return max(min(intervals, default=timedelta(minutes=5)).total_seconds() / 20, _LEAST_PATIENCE)

    async def close(self) -> None:
        """Closes sessions and clients."""
        await self.stack.aclose()
