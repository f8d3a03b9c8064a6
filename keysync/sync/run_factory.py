"""Creates runs and searches for orphans from the configuration and the open clients."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from keysync.config.model import Account, Config
from keysync.failures import FailureTranslator
from keysync.names import fold
from keysync.secret.fingerprint import Fingerprinter
from keysync.sources.interface import KeyName, KeySource
from keysync.sources.shard import everything
from keysync.sync.apply import Applier
from keysync.sync.collect import Collector
from keysync.sync.inventory import Inventory
from keysync.sync.items import ItemFactory, Selection, WorkItems, limits_of, one_each, served_names
from keysync.sync.locks import SecretLocks
from keysync.sync.model import Preflight
from keysync.sync.observers import RunObserver
from keysync.sync.orphans import AccountExistence, MissingCounters, OrphanSearch
from keysync.sync.run import SyncRun
from keysync.targets.interface import SecretTarget

_GRACE: Final = 0.8  # share of `timeouts.shutdown` for writes in progress; the rest is for closing sessions


class KeySources(Protocol):
    """The key sources of the open accounts."""

    @property
    def key_names(self) -> tuple[KeyName, ...]:
        """The key names of every account."""
        ...

    def snapshot(self) -> Callable[[Account], KeySource]:
        """A function from an account to its source. Later changes of the accounts do not affect it."""
        ...


@dataclass(frozen=True, slots=True)
class RunFactory:
    """Creates runs for one configuration. `targets` are the open vaults by name, and may grow. `redact` masks secrets in text.

    `new_existence` is called for each search, since an `AccountExistence` keeps the listings of its run.
    """

    config: Config
    sources: KeySources
    targets: Mapping[str, SecretTarget]
    new_existence: Callable[[], AccountExistence]
    fingerprinter: Fingerprinter
    translator: FailureTranslator
    locks: SecretLocks
    redact: Callable[[str], str]

    def make_run(
        self,
        accounts: Sequence[Account],
        observer: RunObserver,
        stop: asyncio.Event,
        *,
        selection: Selection | None = None,
        dry_run: bool = False,
        accept: str | None = None,
        orphans: OrphanSearch | None = None,
        busy: int = 0,
        patience: float | None = None,
        preflight: Preflight | None = None,
    ) -> SyncRun:
        """A run over `accounts`. With `selection.adopt` it covers only unmanaged secrets.

        `patience` (seconds) shortens how long the limits wait for slow accounts (`timeouts.collect`).
        """
        timeouts, concurrency = self.config.timeouts, self.config.concurrency
        selection = selection or Selection()
        account_seconds = timeouts.account.total_seconds()
        patience = min(timeouts.collect.total_seconds(), patience or math.inf)
        return SyncRun(
            work_items=WorkItems(accounts, ItemFactory(self.config, selection), self.sources.snapshot()),
            collector=Collector(
                self.targets,
                self.fingerprinter,
                self.translator,
                concurrency=concurrency,
                account_seconds=account_seconds,
                patience_seconds=patience,
            ),
            applier=Applier(
                self.targets,
                self.translator,
                concurrency=concurrency,
                stop=stop,
                grace_seconds=timeouts.shutdown.total_seconds() * _GRACE,
                locks=self.locks,
            ),
            limits={name: limits_of(self.config, vault) for name, vault in self.config.vaults.items()},
            observer=observer,
            stop=stop,
            collect_seconds=patience,
            dry_run=dry_run,
            accept=accept,
            only_unmanaged=selection.adopt is not None,
            options=selection.options,
            orphans=orphans,
            orphans_seconds=account_seconds,
            busy=busy,
            preflight=preflight or Preflight(),
            redact=self.redact,
        )

    def orphan_search(
        self,
        inventory: Inventory,
        *,
        is_mine: Callable[[str], bool] = everything,
        streaks: MissingCounters | None = None,
    ) -> OrphanSearch | None:
        """The search for secrets that `inventory` does not map; None if the configuration keeps orphans.

        `streaks`: the daemon's counters, None in a one-off run.
        """
        mode, owner = self.config.orphans, self.config.owner
        if mode == "keep" or owner is None:
            return None
        config, vaults = self.config, self.config.vaults
        served = served_names(config, inventory.accounts)
        return OrphanSearch(
            targets=one_each(config, self.targets),
            existence=self.new_existence(),
            translator=self.translator,
            mode=mode,
            owner=owner,
            served={name: inventory.others.union(vaults[name].url, names) for name, names in served.items()},
            key_names=self.sources.key_names,
            read_only={name for name, vault in vaults.items() if config.read_only or vault.read_only},
            read_only_accounts={account.key for account in inventory.accounts if account.read_only},
            is_mine=is_mine,
            streaks=streaks,
            # No reason for refused accounts: the report already has them.
            excluded={fold(each.resource_id): None if each.refused else each.reason for each in inventory.skipped},
            skip_reason=None if inventory.complete else "not every account could be listed",
        )
