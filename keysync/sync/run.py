"""One sync run: inventory → collect → plan → limits → apply → report. Branching lives in the stages."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import structlog

from keysync.sync.apply import Applier
from keysync.sync.batches import Batches
from keysync.sync.collect import Collector
from keysync.sync.items import WorkItem
from keysync.sync.limits import EffectiveLimits, SafetyCheck
from keysync.sync.model import Preflight, Report
from keysync.sync.observers import RunObserver
from keysync.sync.orphans import OrphanSearch
from keysync.sync.report import ReportBuilder
from keysync.tracing import RUN, span


@dataclass(frozen=True, slots=True)
class SyncRun:
    """The inputs of one run.

    `collect_seconds`: how long the first batch waits for slow accounts; later ones are written in further batches.
    `accept`: the checksum of a plan that may exceed the limits.
    `only_unmanaged`: plan only secrets that keysync does not manage yet (`adopt`).
    `busy`: the number of accounts that this run omits because an earlier run still waits for them.
    `options`: options to repeat in suggested commands (-c, --account, --shard).
    `orphans_seconds`: the deadline of the search for orphans.
    `preflight`: results and warnings from before the run, for the report.
    """

    work_items: Sequence[WorkItem]
    collector: Collector
    applier: Applier
    limits: Mapping[str, EffectiveLimits]
    observer: RunObserver
    stop: asyncio.Event
    collect_seconds: float
    dry_run: bool = False
    accept: str | None = None
    only_unmanaged: bool = False
    busy: int = 0
    options: str = ""
    orphans: OrphanSearch | None = None
    orphans_seconds: float = 120.0
    preflight: Preflight = field(default_factory=Preflight)
    redact: Callable[[str], str] = str
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    @property
    def batch_seconds(self) -> float | None:
        """How long a batch waits for slow accounts. None (no limit) if the plan must be complete: to show or accept it."""
        return None if self.dry_run or self.accept is not None else self.collect_seconds


async def run_sync(run: SyncRun) -> Report:
    """Performs one run and returns its report. Azure failures are in the report, never raised."""
    run_id = uuid.uuid4().hex
    # Bound to the context, so that log lines of the SDKs carry the run id too.
    with structlog.contextvars.bound_contextvars(run_id=run_id), span(RUN, {"keysync.run_id": run_id}):
        return await _run(run, run_id)


async def _run(run: SyncRun, run_id: str) -> Report:
    limits = SafetyCheck(run.limits, accept=run.accept, dry_run=run.dry_run, options=run.options)
    batches = Batches(run.collector, run.stop, only_unmanaged=run.only_unmanaged, clock=run.clock)
    search = None if run.orphans is None else partial(run.orphans.run, run.orphans_seconds)
    report = ReportBuilder(run_id, run.observer, limits, redact=run.redact, clock=run.clock)

    report.inventory(run.work_items, run.preflight)
    async for batch in batches.collect(run.work_items, search, run.batch_seconds, on_account=report.collected):
        plan = batch.plan()
        blocked = limits.check(plan)
        inputs, orphans = batch.inputs(accepted=run.accept is not None), batch.orphans
        del batch  # with the key values of accounts that nothing is written for
        results = await run.applier.apply(plan, inputs, blocked, dry_run=run.dry_run, on_result=report.result)
        report.add(results, orphans)
    return report.finish(interrupted=run.stop.is_set(), busy=run.busy, searched=run.orphans is not None)
