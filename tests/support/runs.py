"""Runs over accounts and vaults in memory."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from keysync.azure.errors import AzureFailureTranslator
from keysync.config.operation import Limits
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.redact import Redactor
from keysync.sources.azure_batch import KEY_NAMES
from keysync.sources.interface import KeyName
from keysync.sync.apply import Applier
from keysync.sync.collect import Collected, Collector
from keysync.sync.items import Selection, WorkItem
from keysync.sync.locks import SecretLocks
from keysync.sync.model import Item, ItemPolicy, ItemRef, Plan, Report, Result, in_order
from keysync.sync.orphans import MissingCounters, OrphanSearch
from keysync.sync.plan import plan_account
from keysync.sync.planner import Planner
from keysync.sync.run import SyncRun, run_sync
from keysync.sync.write import ApplyInputs
from tests.support.memory import MemoryDirectory, MemorySource, MemoryVault

GROUP = "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/g/providers/Microsoft.Batch/batchAccounts"


def key(text: str) -> str:
    """A key of a Batch account, in base64, made from `text`."""
    return base64.b64encode((text * 64)[:64].encode()).decode()


def ref(account: str, name: KeyName = "primary", vault: str = "main") -> ItemRef:
    """The reference of an account's key under the default name."""
    return ItemRef(f"{GROUP}/{account}", name, vault, f"{account}-{name}-key")


@dataclass
class Watcher:
    """A `RunObserver` that appends its calls to `log`; `on_collected` is called for each account."""

    log: list[str] = field(default_factory=list)
    on_collected: Callable[[str], None] = lambda _account: None
    results: list[Result] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    def started(self, run_id: str, work_items: int) -> None:
        """Records the start."""
        self.log.append(f"started {work_items}")

    def collected(self, run_id: str, account: str) -> None:
        """Records the account."""
        self.log.append(f"collected {account.rsplit('/', 1)[-1]}")
        self.on_collected(account.rsplit("/", 1)[-1])

    def result(self, run_id: str, result: Result) -> None:
        """Records the result."""
        self.results.append(result)

    def finished(self, report: Report) -> None:
        """Records the report."""
        self.reports.append(report)


class World:
    """Accounts (each with two keys made from its name) and vaults, and runs over them."""

    def __init__(self, *accounts: str, vaults: Sequence[str] = ("main",)) -> None:
        self.log: list[str] = []
        self.fingerprinter = Fingerprinter()
        self.translator = AzureFailureTranslator(Redactor())
        self.vaults = {name: MemoryVault(self.fingerprinter, log=self.log, clock=lambda: self.now) for name in vaults}
        self.sources = {name: MemorySource(key(f"{name}-1"), key(f"{name}-2")) for name in accounts}
        self.items: dict[str, dict[str, Any]] = {name: {} for name in accounts}
        self.stop = asyncio.Event()
        self.locks = SecretLocks(lambda: self.monotonic)
        self.watcher = Watcher(self.log)
        self.monotonic = 0.0
        self.now = datetime(2026, 11, 24, 5, 22, tzinfo=UTC)

    @property
    def vault(self) -> MemoryVault:
        """The vault named main."""
        return self.vaults["main"]

    def work_items(self) -> list[WorkItem]:
        """A work item for each account and vault; `items` is the configuration of the account."""
        return [
            WorkItem(
                f"{GROUP}/{name}",
                source,
                tuple(
                    Item(ref(name, each, vault), ItemPolicy(**self.items[name]))
                    for each in KEY_NAMES
                    if each in source.values or each in source.refused
                ),
            )
            for vault in self.vaults
            for name, source in self.sources.items()
        ]

    def collector(self, *, account_seconds: float = 5, concurrency: int = 8) -> Collector:
        """A collector over the vaults."""
        return Collector(
            self.vaults,
            self.fingerprinter,
            self.translator,
            concurrency=concurrency,
            account_seconds=account_seconds,
            clock=lambda: self.monotonic,
        )

    def applier(self, *, concurrency: int = 8, grace_seconds: float = 5) -> Applier:
        """An applier over the vaults."""
        return Applier(
            self.vaults,
            self.translator,
            self.locks,
            concurrency=concurrency,
            stop=self.stop,
            grace_seconds=grace_seconds,
            now=lambda: self.now,
        )

    async def collect(self) -> list[Collected]:
        """Collects all accounts in their current state."""
        collector = self.collector()
        return [await collector.collect(scope) for scope in self.work_items()]

    async def plan(self) -> Plan:
        """The plan for the current state."""
        accounts = await self.collect()
        return Plan(in_order(c for a in accounts for c in (*plan_account(a.observed, self.now), *a.failed)))

    async def planner(self) -> Planner:
        """All accounts, planned."""
        planner = Planner(lambda: self.now, only_unmanaged=False)
        for account in await self.collect():
            planner.add(account)
        return planner

    async def apply(self, *, accepted: bool = False, **options: Any) -> tuple[Result, ...]:
        """Plans and writes."""
        return await self.write(*(await self.planner()).take(accepted=accepted), **options)

    async def write(self, plan: Plan, inputs: ApplyInputs, **options: Any) -> tuple[Result, ...]:
        """Writes `plan`."""
        results: list[Result] = []
        await self.applier(**options).apply(plan, inputs, on_result=results.append)
        return in_order(results)

    def orphans(
        self,
        directory: MemoryDirectory,
        *,
        mode: Literal["disable", "delete"] = "delete",
        owner: str = "mine",
        read_only: Sequence[str] = (),
        streaks: MissingCounters | None = None,
    ) -> OrphanSearch:
        """A search of all vaults for secrets that none of the accounts uses; with `streaks` it is the daemon's
        search."""
        served = {
            vault: {item.ref.secret for scope in self.work_items() for item in scope.items} for vault in self.vaults
        }
        return OrphanSearch(
            self.vaults, directory, self.translator, mode, owner, served, KEY_NAMES, read_only, streaks=streaks
        )

    def writes(self) -> list[str]:
        """The log entries that are calls to a vault."""
        return [line for line in self.log if not line.startswith(("started", "collected"))]

    def job(
        self,
        *,
        limits: Mapping[str, Limits] | None = None,
        collect_seconds: float = 5,
        dry_run: bool = False,
        accept: str | None = None,
        only_unmanaged: bool = False,
        orphans: OrphanSearch | None = None,
        concurrency: int = 8,
        **collecting: Any,
    ) -> SyncRun:
        """A sync run over the current state."""
        return SyncRun(
            work_items=self.work_items(),
            collector=self.collector(concurrency=concurrency, **collecting),
            applier=self.applier(grace_seconds=0.02),
            limits=limits or {},
            observers=(self.watcher,),
            stop=self.stop,
            collect_seconds=collect_seconds,
            selection=Selection(adopt="untagged" if only_unmanaged else None, dry_run=dry_run, accept=accept),
            orphans=orphans,
            clock=lambda: self.now,
        )

    async def run(self, **options: Any) -> Report:
        """Makes one complete run; `options` are those of `job`."""
        return await run_sync(self.job(**options))


def outcomes(results: Sequence[Result]) -> dict[str, str]:
    """Secret name to outcome."""
    return {result.ref.secret: result.outcome for result in results}
