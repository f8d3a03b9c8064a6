"""One pass, whole: collect → plan → safety → apply → report. Branching lives in the stages."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from keysync.azure.errors import FailureRecord
from keysync.sync.apply import Applier, not_written, planned
from keysync.sync.collect import AccountScope, Collected, Collector
from keysync.sync.model import Plan, Report, Result, Unseen
from keysync.sync.plan import make_plan
from keysync.sync.safety import LimitsLike, breaches, checksum, refusal_of, stop_message


class PassObserver(Protocol):
    """Told how a pass goes, as it goes."""

    def started(self, run_id: str, scopes: int) -> None: ...
    def collected(self, run_id: str, account: str) -> None: ...
    def result(self, run_id: str, result: Result) -> None: ...
    def finished(self, report: Report) -> None: ...


@dataclass(frozen=True, slots=True)
class Pass:
    """Everything that one pass needs.

    `collect_seconds` is how long the first writing waits for slow accounts: a later one is judged and written in a
    second round of the pass. `accept` is the checksum of the plan that may go beyond the limits.
    """

    scopes: Sequence[AccountScope]
    collector: Collector
    applier: Applier
    limits: Mapping[str, LimitsLike]
    observer: PassObserver
    stop: asyncio.Event
    collect_seconds: float
    dry_run: bool = False
    accept: str | None = None
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))


async def run_pass(job: Pass) -> Report:
    """Runs one pass and returns its report; failures of Azure are in the report, never raised."""
    run_id, started, watch = uuid.uuid4().hex, job.clock(), time.monotonic()
    accounts = len({scope.account for scope in job.scopes})
    job.observer.started(run_id, len(job.scopes))
    results: list[Result] = []
    changes = Plan(())
    stopped: str | None = None
    async for collected in _rounds(job, run_id):
        plan = make_plan(one for account in collected for one in account.observed)
        changes = Plan((*changes.changes, *plan.changes))
        stopped = stopped or _judge(job, changes)
        results += await _carry_out(job, plan, collected, stopped)
    report = Report(
        run_id=run_id,
        dry_run=job.dry_run,
        checksum=checksum(Plan(tuple(sorted(changes.changes, key=lambda change: change.ref)))),
        started=started,
        duration_seconds=round(time.monotonic() - watch, 3),
        accounts=accounts,
        results=tuple(sorted(results, key=lambda result: result.ref)),
        stopped=stopped,
        interrupted=job.stop.is_set(),
    )
    for result in report.results:
        job.observer.result(run_id, result)
    job.observer.finished(report)
    return report


def _judge(job: Pass, changes: Plan) -> str | None:
    if job.dry_run:
        return None
    actual = checksum(Plan(tuple(sorted(changes.changes, key=lambda change: change.ref))))
    if job.accept is not None:
        return None if job.accept == actual else refusal_of(job.accept, actual)
    found = breaches(changes, job.limits)
    return stop_message(found, actual) if found else None


async def _carry_out(job: Pass, plan: Plan, collected: Sequence[Collected], stopped: str | None) -> Sequence[Result]:
    if job.dry_run:
        return [planned(change) for change in plan.changes]
    if stopped is not None:
        return not_written(plan, "a safety limit stopped the pass before any write")
    values = {ref: value for account in collected for ref, value in account.values.items()}
    return await job.applier.apply(plan, values)


async def _rounds(job: Pass, run_id: str) -> AsyncIterator[Sequence[Collected]]:
    """The accounts that answered in time, then those that were late; whole at once where a plan is only shown or accepted."""
    tasks = {
        asyncio.create_task(_collect(job, scope, run_id), name=f"collect {scope.account}"): scope
        for scope in job.scopes
    }
    try:
        patience = None if job.dry_run or job.accept is not None else job.collect_seconds
        done, late = await _wait(set(tasks), job.stop, patience)
        yield [task.result() for task in done] + _cut_short(job, tasks, late)
        if late and not job.stop.is_set():
            done, late = await _wait(late, job.stop, None)
            yield [task.result() for task in done] + _cut_short(job, tasks, late)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _collect(job: Pass, scope: AccountScope, run_id: str) -> Collected:
    collected = await job.collector.collect(scope)
    job.observer.collected(run_id, scope.account)
    return collected


def _cut_short(
    job: Pass, tasks: Mapping[asyncio.Task[Collected], AccountScope], late: set[asyncio.Task[Collected]]
) -> list[Collected]:
    """An interrupted pass still has one item for each that it should have served."""
    if not job.stop.is_set():
        return []
    record = FailureRecord(kind="timeout", summary="interrupted before the account answered")
    scopes = (tasks[task] for task in late)
    return [Collected(scope.account, tuple(Unseen(item, record) for item in scope.items)) for scope in scopes]


async def _wait(
    tasks: set[asyncio.Task[Collected]], stop: asyncio.Event, seconds: float | None
) -> tuple[set[asyncio.Task[Collected]], set[asyncio.Task[Collected]]]:
    """Waits for all `tasks`, at most `seconds`, or until `stop` is set."""
    stopped = asyncio.create_task(stop.wait())
    everything = asyncio.ensure_future(asyncio.wait(tasks)) if tasks else None
    if everything is not None:
        await asyncio.wait({everything, stopped}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for helper in filter(None, (stopped, everything)):
        helper.cancel()
        with suppress(asyncio.CancelledError):
            await helper
    done = {task for task in tasks if task.done()}
    return done, tasks - done
