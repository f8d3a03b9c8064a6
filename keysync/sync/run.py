"""One run, whole: collect → plan → safety → apply → report. Branching lives in the stages."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Protocol

import structlog

from keysync.failures import FailureRecord
from keysync.sync.apply import Applier, ApplyInputs, only_planned, planned, skipped_results
from keysync.sync.collect import Collected, Collection, Collector, WorkItem
from keysync.sync.limits import LimitsLike, SafetyCheck
from keysync.sync.model import Change, Observed, Plan, Preflight, Report, Result, Unobserved, in_order
from keysync.sync.orphans import OrphanFindings, OrphanSearch
from keysync.sync.plan import make_plan
from keysync.sync.waiting import wait_for
from keysync.tracing import NO_TRACER, RUN, Tracer


class RunObserver(Protocol):
    """Told how a run goes, as it goes."""

    def started(self, run_id: str, scopes: int) -> None: ...
    def collected(self, run_id: str, account: str) -> None: ...
    def result(self, run_id: str, result: Result) -> None:
        """Called once an item, as soon as its result is there, in no order."""
        ...

    def finished(self, report: Report) -> None: ...


@dataclass(frozen=True, slots=True)
class SyncRun:
    """Everything that one run needs.

    `collect_seconds` is how long the first writing waits for slow accounts: a later one is judged and written in a
    second round of the run. `accept` is the checksum of the plan that may go beyond the limits. `only_unmanaged` leaves out
    all but secrets that are not ours, for `adopt`. `busy` accounts are left out, since an earlier run still waits for
    them. `options`, such as ``-c FILE``, go into the commands that are told. `orphans` searches for those, `orphans_seconds` at most.
    `preflight` goes into the report as it is.
    """

    scopes: Sequence[WorkItem]
    collector: Collector
    applier: Applier
    limits: Mapping[str, LimitsLike]
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
    tracer: Tracer = NO_TRACER
    redact: Callable[[str], str] = str
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    @property
    def patience(self) -> float | None:
        """How long slow accounts are waited for: without end where a plan is only shown, or goes as a whole."""
        return None if self.dry_run or self.accept is not None else self.collect_seconds


@dataclass(slots=True)
class Batch:
    """Accounts that are written together, and the orphans found.

    Each is judged as soon as it has answered: of an account that is in sync, and in a large fleet nearly all are, nothing is
    kept but its results. Of one with something to write it is all that was seen of it.
    """

    changes: list[Change] = field(default_factory=list)
    settled: list[Result] = field(default_factory=list)
    writing: list[Collected] = field(default_factory=list)
    orphans: OrphanFindings = field(default_factory=OrphanFindings)

    def distrust(self, accounts: Mapping[str, str]) -> None:
        """Refuses all that was to be done for these accounts, for the reasons given."""
        in_sync = [result for result in self.settled if result.ref.account in accounts]
        self.settled = [result for result in self.settled if result.ref.account not in accounts]
        self.changes += [Change(one.ref, "unchanged", before=one.version, managed=True) for one in in_sync]
        self.changes = [_distrusted(change, accounts) for change in self.changes]
        self.writing = [account for account in self.writing if account.account not in accounts]

    def add(self, account: Collected, job: SyncRun) -> None:
        """Judges one more account."""
        made = make_plan(account.observed, job.clock())
        for change in made.changes:
            if change.kind == "unchanged" and change.managed:
                self.settled += () if job.only_unmanaged else (planned(change),)
            elif change.unmanaged or change.error or not job.only_unmanaged:
                self.changes.append(change)
        if made.writes:
            self.writing.append(account)

    @property
    def filled(self) -> bool:
        """Whether there is anything in it but orphans."""
        return bool(self.changes or self.settled or self.writing)

    def plan(self) -> Plan:
        """What is to be done for them."""
        return Plan(in_order((*self.changes, *self.orphans.changes)), tuple(self.settled))

    def material(
        self, plan: Plan, *, accepted: bool = False, distrusted: Mapping[str, str] = MappingProxyType({})
    ) -> ApplyInputs:
        """What carrying out `plan` takes."""
        wanted = {change.ref for change in plan.writes}
        those = [account for account in self.writing if any(one.item.ref in wanted for one in account.observed)]
        seen = {one.item.ref: one for account in those for one in account.observed if isinstance(one, Observed)}
        values = {ref: value for account in those for ref, value in account.values.items()}
        return ApplyInputs(seen, values, accepted, distrusted)


async def run_sync(job: SyncRun) -> Report:
    """Runs one run and returns its report; failures of Azure are in the report, never raised."""
    run_id = uuid.uuid4().hex
    # So that what the SDKs log while it runs carries it too.
    with structlog.contextvars.bound_contextvars(run_id=run_id), job.tracer.span(RUN, {"keysync.run_id": run_id}):
        return await _run(job, run_id)


async def _run(job: SyncRun, run_id: str) -> Report:
    started, watch = job.clock(), time.monotonic()
    job.observer.started(run_id, len(job.scopes))
    gate = SafetyCheck(job.limits, accept=job.accept, dry_run=job.dry_run, options=job.options)
    results: list[Result] = []
    warnings, about_orphans = list(job.preflight.warnings), list[str]()
    for result in job.preflight.results:
        job.observer.result(run_id, result)
    builder = BatchBuilder(job, run_id)
    async for part in _rounds(job, builder):
        about_orphans += part.orphans.warnings
        plan = part.plan()
        material = part.material(plan, accepted=job.accept is not None, distrusted=builder.distrusted)
        del part  # with the values of accounts that nothing is written of
        results += await _carry_out(job, plan, material, gate, run_id)
    gate.settle(results)
    for result in filter(gate.waits, results):
        job.observer.result(run_id, _redacted(job, gate.told(result)))
    report = Report(
        run_id=run_id,
        dry_run=job.dry_run,
        checksum=gate.checksum,
        started=started,
        duration_seconds=round(time.monotonic() - watch, 3),
        accounts=len({scope.account for scope in job.scopes}),
        results=in_order((*job.preflight.results, *(_redacted(job, gate.told(one)) for one in results))),
        stopped=gate.stopped,
        interrupted=job.stop.is_set(),
        warnings=(*gate.warnings, *warnings, *about_orphans),
        busy=job.busy,
        incomplete=job.preflight.incomplete,
        orphans_searched=job.orphans is not None and not about_orphans,
    )
    job.observer.finished(report)
    return report


def _redacted(job: SyncRun, result: Result) -> Result:
    """A reason repeats tags, and whoever may tag a secret may write anything there."""
    return result if result.reason is None else replace(result, reason=job.redact(result.reason))


async def _carry_out(
    job: SyncRun, plan: Plan, material: ApplyInputs, gate: SafetyCheck, run_id: str
) -> Sequence[Result]:
    blocked = gate.judge(plan)

    def tell(result: Result) -> None:
        if not gate.waits(result):
            job.observer.result(run_id, _redacted(job, result))

    if blocked is None and not job.dry_run:
        return await job.applier.apply(plan, material, tell=tell)
    results = only_planned(plan) if blocked is None else skipped_results(plan, blocked.outcome, blocked.reason)
    for result in results:
        tell(result)
    return results


async def _rounds(job: SyncRun, builder: BatchBuilder) -> AsyncIterator[Batch]:
    """The accounts that answered in time, then again and again those that were late; whole at once where a plan is only shown or accepted."""
    collection = job.collector.begin(job.scopes, builder.add)
    search = asyncio.create_task(_search(job), name="orphans")
    try:
        await wait_for([*collection.tasks, search], job.stop, job.patience)
        yield builder.take(collection, search.result() if search.done() else _not_searched(job))
        while not job.stop.is_set() and not collection.is_over:
            await wait_for(collection.tasks, job.stop, job.patience)
            if builder.filled:
                yield builder.take(collection)
        # Stopped while an earlier round was being written: what was not taken yet has its items too.
        last = builder.take(collection)
        if last.filled:
            yield last
        if collection.fault is not None:
            raise collection.fault
    finally:
        search.cancel()
        await asyncio.gather(search, return_exceptions=True)
        await collection.close()


class BatchBuilder:
    """Judges accounts as they answer, in a round that can be taken at any time."""

    def __init__(self, job: SyncRun, run_id: str) -> None:
        self._job = job
        self._run_id = run_id
        self._round = Batch()
        self._owners: dict[int, str] = {}
        self.distrusted: dict[str, str] = {}
        """Accounts with a key that another account of the run also has, and the reason not to write their keys."""

    @property
    def filled(self) -> bool:
        """Whether a round taken now has anything in it."""
        return self._round.filled

    def add(self, account: Collected) -> None:
        """Judges one account; a fault of ours in one must not stop the others."""
        try:
            self._round.add(account, self._job)
        except Exception as error:  # noqa: BLE001  # as above
            self._round.add(self._job.collector.misjudged(account, error), self._job)
        self._compare(account)
        self._job.observer.collected(self._run_id, account.account)

    def _compare(self, account: Collected) -> None:
        """Looks for the account's keys among those of the accounts before it. No two accounts have a key in common."""
        for key in account.keys:
            # 64 bits of a keyed digest: less memory than the digest, and hardly ever the same for two keys.
            owner = self._owners.setdefault(hash(key), account.account)
            if owner != account.account:
                self.distrusted.setdefault(owner, _shared_key(account.account))
                self.distrusted.setdefault(account.account, _shared_key(owner))

    def take(self, collection: Collection, found: OrphanFindings | None = None) -> Batch:
        """What was judged since the last time; of a run that is being stopped with all that have not answered, too."""
        if self._job.stop.is_set():
            for account in _cut_short(collection.give_up()):
                self._round.add(account, self._job)
        taken, self._round = self._round, Batch()
        if self.distrusted:
            taken.distrust(self.distrusted)
        taken.orphans = found or OrphanFindings()
        return taken


def _shared_key(other: str) -> str:
    return f"the service gave the same key for {other}, so one of the two replies is wrong: not written"


def _distrusted(change: Change, accounts: Mapping[str, str]) -> Change:
    if change.ref.account not in accounts or change.kind in {"failed", "refused"}:
        return change
    return Change(
        change.ref, "refused", reason=accounts[change.ref.account], before=change.before, managed=change.managed
    )


def _not_searched(job: SyncRun) -> OrphanFindings:
    told = "orphans: the search was not done in time, nothing is removed in this run"
    return OrphanFindings(warnings=(told,) if job.orphans is not None else ())


async def _search(job: SyncRun) -> OrphanFindings:
    return await job.orphans.run(job.orphans_seconds) if job.orphans is not None else OrphanFindings()


def _cut_short(scopes: Sequence[WorkItem]) -> list[Collected]:
    """An interrupted pass still has one item for each that it should have served."""
    record = FailureRecord(kind="timeout", summary="interrupted before the account answered")
    return [Collected(scope.account, tuple(Unobserved(item, record) for item in scope.items)) for scope in scopes]
