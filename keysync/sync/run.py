"""One sync run: inventory → collect → plan → limits → apply → report. Branching lives in the stages."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from keysync.config.operation import Limits
from keysync.failures import FailureRecord
from keysync.sync.apply import Applier
from keysync.sync.collect import Collected, Collector, all_failed
from keysync.sync.items import Selection, WorkItem
from keysync.sync.limits import Blocked, Counts, check, check_accepted, count
from keysync.sync.model import Preflight, Report
from keysync.sync.observers import RunObserver
from keysync.sync.orphans import SEARCH_TOO_SLOW, OrphanFindings, OrphanSearch
from keysync.sync.planner import Planner
from keysync.sync.report import ReportBuilder
from keysync.sync.waiting import wait_for
from keysync.tracing import RUN, span

_INTERRUPTED: Final = FailureRecord(kind="timeout", summary="interrupted before the account answered")


@dataclass(frozen=True, slots=True)
class SyncRun:
    """The inputs of one run.

    `collect_seconds`: how long the plan waits for slow accounts. A follow-up run has the later ones.
    `busy`: the number of accounts that this run omits because an earlier run still waits for them.
    `orphans_seconds`: the deadline of the search for orphans.
    `preflight`: results and warnings from before the run, for the report.
    """

    work_items: Sequence[WorkItem]
    collector: Collector
    applier: Applier
    limits: Mapping[str, Limits]
    observers: Sequence[RunObserver]
    stop: asyncio.Event
    collect_seconds: float
    selection: Selection = field(default_factory=Selection)
    busy: int = 0
    orphans: OrphanSearch | None = None
    orphans_seconds: float = 120.0
    preflight: Preflight = field(default_factory=Preflight)
    redact: Callable[[str], str] = str
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))


async def run_sync(run: SyncRun) -> Report:
    """Performs one run and returns its report. Azure failures are in the report, never raised."""
    run_id = uuid.uuid4().hex
    # Bound to the context, so that log lines of the SDKs carry the run id too.
    with structlog.contextvars.bound_contextvars(run_id=run_id), span(RUN, {"keysync.run_id": run_id}):
        return await _Flow(run, run_id).perform()


class _Flow:
    """A run, and its follow-up runs over the accounts that responded too late.

    They share the run id, the report and the limits: together they change no more than one run may.
    """

    def __init__(self, run: SyncRun, run_id: str) -> None:
        self._run, self._run_id = run, run_id
        self._report = ReportBuilder(run, run_id)
        self._planner = Planner(run.clock, only_unmanaged=run.selection.adopt is not None)
        self._uncollected = dict.fromkeys(run.work_items)
        self._written: Counts = Counter()
        self._blocked: Blocked | None = None
        self._orphan_warnings: tuple[str, ...] = ()

    async def perform(self) -> Report:
        """Runs until every account has its results."""
        run = self._run
        collection = asyncio.create_task(
            run.collector.collect_all(run.work_items, run.collect_seconds, self._collected), name="collect"
        )
        search = (
            None if run.orphans is None else asyncio.create_task(run.orphans.run(run.orphans_seconds), name="orphans")
        )
        try:
            await self._once(collection, search)
            while not collection.done() or not self._planner.is_empty:
                await self._once(collection)
            if not collection.cancelled():
                collection.result()  # raises a fault
        finally:
            tasks: list[asyncio.Task[Any]] = [collection, *([search] if search is not None else [])]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return self._report.finish(self._blocked, self._orphan_warnings)

    async def _once(self, collection: asyncio.Task[None], search: asyncio.Task[OrphanFindings] | None = None) -> None:
        """Collect → plan → limits → apply, for the accounts that respond within `collect_seconds`."""
        run, dry_run, accept = self._run, self._run.selection.dry_run, self._run.selection.accept
        # A plan that is shown or accepted must be complete.
        seconds = None if dry_run or accept is not None else run.collect_seconds
        await wait_for([collection] if search is None else [collection, search], run.stop, seconds)
        if run.stop.is_set():
            collection.cancel()
            await asyncio.wait([collection])
            for work_item in self._uncollected:
                self._planner.add(all_failed(work_item, _INTERRUPTED))
            self._uncollected.clear()
        orphans = OrphanFindings()
        if search is not None:
            orphans = search.result() if search.done() else SEARCH_TOO_SLOW
            self._orphan_warnings = orphans.warnings

        plan, inputs = self._planner.take(orphans.changes, accepted=accept is not None)
        if accept is not None:
            self._blocked = check_accepted(plan, accept)
        else:
            self._blocked = self._blocked or check(plan, run.limits, self._written)
        blocked = None if dry_run else self._blocked
        self._written += count(plan)
        self._report.planned(plan, blocked)
        await run.applier.apply(plan, inputs, blocked, dry_run=dry_run, on_result=self._report.result)

    def _collected(self, work_item: WorkItem, account: Collected) -> None:
        del self._uncollected[work_item]
        try:
            self._planner.add(account)
        except Exception as error:  # noqa: BLE001  # a bug that one account triggers must not stop the others
            self._planner.add(self._run.collector.plan_failed(account, error))
        for observer in self._run.observers:
            observer.collected(self._run_id, account.account)
