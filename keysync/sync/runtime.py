"""One configuration with everything open that its runs need. One-off commands open one, the daemon one after the other."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from keysync.config.model import Account, Config
from keysync.failures import FailureTranslator
from keysync.names import fold
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.redact import Redactor
from keysync.sources.discovery import Discovery, Inventory
from keysync.sources.interface import KeySources
from keysync.sources.shard import Shard, share_of
from keysync.sync.apply import Applier
from keysync.sync.collect import Collector
from keysync.sync.inventory import preflight
from keysync.sync.items import Selection, limits_of, work_items_of
from keysync.sync.locks import SecretLocks
from keysync.sync.model import Preflight
from keysync.sync.observers import RunObserver
from keysync.sync.orphans import AccountExistence, MissingCounters, OrphanSearch
from keysync.sync.run import SyncRun
from keysync.targets.interface import SecretTarget
from keysync.targets.recent_writes import RecentWrites

_GRACE: Final = 0.8  # share of `timeouts.shutdown` for writes in progress; the rest is for closing sessions


@dataclass(frozen=True, slots=True)
class Shared:
    """What the configurations of one process share. In the daemon it outlives each of them.

    `stop` returns the event that ends a run that begins now. `selection` and `shard` come from the command line. `streaks` is
    None in a one-off run, which cannot prove over several runs that an account is gone.
    """

    redactor: Redactor
    observers: Sequence[RunObserver] = ()
    stop: Callable[[], asyncio.Event] = asyncio.Event
    selection: Selection = field(default_factory=Selection)
    shard: Shard | None = None
    fingerprinter: Fingerprinter = field(default_factory=Fingerprinter)
    locks: SecretLocks = field(default_factory=SecretLocks)
    writes: RecentWrites = field(default_factory=RecentWrites)
    streaks: MissingCounters | None = None

    @property
    def discovered(self) -> Callable[[str], bool]:
        """Whether to discover an account, by ARM id. If accounts or secrets are named, one of another shard is no typing error."""
        return share_of(self.shard if self.selection.names_nothing else None)


class OpenCredential(Protocol):
    """An open credential, as log, `check` and the status page name it. `expires_at` is None if unknown."""

    @property
    def name(self) -> str: ...
    @property
    def expires_at(self) -> datetime | None: ...


@dataclass(slots=True)
class Runtime:
    """One configuration, opened. Makes its runs.

    `cover` sets `inventory` and `accounts`, and opens missing `targets` (vaults by name) with `open_target`. `new_existence` is
    called for each search, since an `AccountExistence` keeps the listings of its run. `stack` closes everything that is open.
    """

    config: Config
    shared: Shared
    sources: KeySources
    targets: dict[str, SecretTarget]
    open_target: Callable[[str], Awaitable[SecretTarget]]
    discovery: Discovery
    new_existence: Callable[[], AccountExistence]
    translator: FailureTranslator
    credentials: Callable[[], Sequence[OpenCredential]]
    stack: AsyncExitStack
    inventory: Inventory
    accounts: tuple[Account, ...] = ()

    async def cover(self, inventory: Inventory, accounts: Sequence[Account] | None = None) -> None:
        """Serves the accounts of `inventory`, or only `accounts`, from now on. Runs under way keep theirs.

        Makes no request. Raises UsageError if this machine lacks something that the configuration names for them.
        """
        accounts = inventory.accounts if accounts is None else tuple(accounts)
        for name in dict.fromkeys(name for account in accounts for name in account.vaults):
            if name not in self.targets:
                self.targets[name] = await self.open_target(name)
        await self.sources.cover(accounts)
        self.inventory, self.accounts = inventory, tuple(accounts)

    @property
    def credential_expiries(self) -> dict[str, datetime]:
        """When the open credentials expire, by name. Omits those of unknown expiry."""
        return {each.name: each.expires_at for each in self.credentials() if each.expires_at is not None}

    async def close(self) -> None:
        """Closes sessions and clients."""
        await self.stack.aclose()

    def make_run(self, accounts: Sequence[Account], *, busy: int = 0, patience: float = math.inf) -> SyncRun:
        """A run over `accounts`. `busy` accounts are due too, but still in an earlier run.

        `patience` (seconds) shortens how long the limits wait for slow accounts (`timeouts.collect`). Runs of the general
        schedule also search for orphans, unless accounts or secrets are named, and report the accounts that are refused.
        """
        config, shared, selection = self.config, self.shared, self.shared.selection
        timeouts, stop, source_of = config.timeouts, shared.stop(), self.sources.source_of
        account_seconds, grace = timeouts.account.total_seconds(), timeouts.shutdown.total_seconds() * _GRACE
        # If each account has a schedule of its own, every run counts as general.
        general = (
            not accounts
            or any(account.schedule is None for account in accounts)
            or all(account.schedule is not None for account in self.accounts)
        )
        return SyncRun(
            work_items_of(config, accounts, selection, source_of, self.sources.content_type),
            Collector(self.targets, shared.fingerprinter, self.translator, config.concurrency, account_seconds),
            Applier(self.targets, self.translator, shared.locks, config.concurrency, stop, grace),
            {name: limits_of(config, vault) for name, vault in config.vaults.items()},
            shared.observers,
            stop,
            collect_seconds=min(timeouts.collect.total_seconds(), patience),
            selection=selection,
            orphans=self.orphan_search() if general and selection.names_nothing and selection.adopt is None else None,
            orphans_seconds=account_seconds,
            busy=busy,
            preflight=preflight(self.inventory, selection, shared.shard) if general else Preflight(),
            redact=shared.redactor.redact,
        )

    def orphan_search(self) -> OrphanSearch | None:
        """The search for secrets that the inventory does not map; None if the configuration keeps orphans."""
        config, vaults, inventory = self.config, self.config.vaults, self.inventory
        if config.orphans == "keep" or config.owner is None:
            return None
        first_names = {vaults[name].url: name for name in reversed(self.targets)}
        read_only = {name for name, vault in vaults.items() if config.read_only or vault.read_only}
        return OrphanSearch(
            {name: self.targets[name] for name in first_names.values()},
            self.new_existence(),
            self.translator,
            mode=config.orphans,
            owner=config.owner,
            served=inventory.written({name: vault.url for name, vault in vaults.items()}),
            key_names=self.sources.key_names,
            read_only=read_only | {account.key for account in inventory.accounts if account.read_only},
            is_mine=share_of(self.shared.shard),
            streaks=self.shared.streaks,
            # No reason for refused accounts: the report already has them.
            excluded={fold(each.resource_id): None if each.refused else each.reason for each in inventory.skipped},
            skip_reason=None if inventory.complete else "not every account could be listed",
        )
