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

import structlog

from keysync.azure.errors import FailureRecord
from keysync.sync.apply import Applier, not_written, planned
from keysync.sync.collect import AccountScope, Collected, Collector
from keysync.sync.model import Plan, Report, Result, Unseen
from keysync.sync.plan import make_plan
from keysync.sync.safety import Breach, LimitsLike, breaches, checksum, refusal_of, stop_message


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
    run_id = uuid.uuid4().hex
    # So that what the SDKs log while it runs carries it too.
    with structlog.contextvars.bound_contextvars(run_id=run_id):
        return await _run(job, run_id)


async def _run(job: Pass, run_id: str) -> Report:
    started, watch = job.clock(), time.monotonic()
    accounts = len({scope.account for scope in job.scopes})
    job.observer.started(run_id, len(job.scopes))
    results: list[Result] = []
    verdict = _Verdict(job)
    async for collected in _rounds(job, run_id):
        plan = make_plan(one for account in collected for one in account.observed)
        results += await _carry_out(job, plan, collected, go=verdict.judge(plan))
    report = Report(
        run_id=run_id,
        dry_run=job.dry_run,
        checksum=verdict.checksum,
        started=started,
        duration_seconds=round(time.monotonic() - watch, 3),
        accounts=accounts,
        results=tuple(sorted(results, key=lambda result: result.ref)),
        stopped=verdict.stopped,
        interrupted=job.stop.is_set(),
    )
    for result in report.results:
        job.observer.result(run_id, result)
    job.observer.finished(report)
    return report


class _Verdict:
    """Whether each round may be written, by the limits over all rounds together, or by the accepted checksum."""

    def __init__(self, job: Pass) -> None:
        self._job = job
        self._let_through = Plan(())
        self._held_back = Plan(())
        self._breaches: tuple[Breach, ...] = ()
        self._refusal: str | None = None

    def judge(self, plan: Plan) -> bool:
        """Whether `plan`, on top of the rounds before it, may be written; once one is held back, all later ones are."""
        if self._job.accept is not None and self._job.accept != checksum(plan):
            self._refusal = refusal_of(self._job.accept, checksum(plan))
        elif self._job.accept is None and not self._job.dry_run and not self._breaches:
            self._breaches = breaches(_joined(self._let_through, plan), self._job.limits)
        go = not self._breaches and self._refusal is None
        if go:
            self._let_through = _joined(self._let_through, plan)
        else:
            self._held_back = _joined(self._held_back, plan)
        return go

    @property
    def checksum(self) -> str:
        """Of the whole plan, or where something was held back of just that: it is what the next pass would find to do."""
        return checksum(self._held_back if self._breaches or self._refusal else self._let_through)

    @property
    def stopped(self) -> str | None:
        """The error of a stopped pass."""
        if self._breaches:
            return stop_message(self._breaches, self.checksum, written=bool(self._let_through.writes))
        return self._refusal


def _joined(one: Plan, other: Plan) -> Plan:
    return Plan(tuple(sorted((*one.changes, *other.changes), key=lambda change: change.ref)))


async def _carry_out(job: Pass, plan: Plan, collected: Sequence[Collected], *, go: bool) -> Sequence[Result]:
    if job.dry_run:
        return [planned(change) for change in plan.changes]
    if not go:
        return not_written(plan, "a safety limit stopped the pass: not written")
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
        interrupted = job.stop.is_set()
        yield [task.result() for task in done] + (_cut_short(tasks, late) if interrupted else [])
        if late and not interrupted:
            done, late = await _wait(late, job.stop, None)
            yield [task.result() for task in done] + _cut_short(tasks, late)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _collect(job: Pass, scope: AccountScope, run_id: str) -> Collected:
    collected = await job.collector.collect(scope)
    job.observer.collected(run_id, scope.account)
    return collected


def _cut_short(
    tasks: Mapping[asyncio.Task[Collected], AccountScope], late: set[asyncio.Task[Collected]]
) -> list[Collected]:
    """An interrupted pass still has one item for each that it should have served."""
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
