"""The report of a run, and the results on their way to the observer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from keysync.errors import Instruction
from keysync.sync.limits import Blocked, checksum
from keysync.sync.messages import command
from keysync.sync.model import (
    BAD,
    REMOVALS,
    WRITES,
    Change,
    ChangeKind,
    ItemRef,
    Outcome,
    Plan,
    Report,
    Result,
    in_order,
)

if TYPE_CHECKING:
    from keysync.sync.run import SyncRun

# The outcomes of a change that the next run plans again.
_LEFT: Final = frozenset[Outcome]({*BAD, *WRITES, "skipped"})


class ReportBuilder:
    """Gathers the results of `run` and its follow-up runs, and reports each to the observers as soon as it is final."""

    def __init__(self, run: SyncRun, run_id: str) -> None:
        self._run, self._run_id = run, run_id
        self._started, self._start_time = run.clock(), time.monotonic()
        self._writes: list[Change] = []
        self._results: list[Result] = []
        # Items whose reason ends with the command that accepts them, which is known only at the end of the run.
        self._waiting: dict[ItemRef, str] = {}
        for observer in run.observers:
            observer.started(run_id, len(run.work_items))
        for result in run.preflight.results:
            self._report(result)

    def _report(self, result: Result) -> None:
        for observer in self._run.observers:
            observer.result(self._run_id, result)

    def planned(self, plan: Plan, blocked: Blocked | None) -> None:
        """Adds a plan that is about to be applied."""
        self._writes += plan.writes
        for change in plan.writes:
            if blocked is None and change.needs_accept and self._run.selection.accept is None:
                self._waiting[change.ref] = change.needs_accept
            elif blocked is not None and blocked.late and not change.read_only:
                self._waiting[change.ref] = blocked.reason

    def result(self, result: Result) -> None:
        """Adds the result of an item."""
        if result.reason is not None:
            # It quotes tags, which anyone with access to the vault may have written.
            result = replace(result, reason=self._run.redact(result.reason))
        self._results.append(result)
        if result.ref not in self._waiting:
            self._report(result)

    def finish(self, blocked: Blocked | None, orphan_warnings: Sequence[str]) -> Report:
        """Reports the remaining results and the end of the run."""
        run, selection = self._run, self._run.selection
        refs = {result.ref for result in self._results if result.outcome in _LEFT}
        left = [change for change in self._writes if change.ref in refs]
        kinds = Counter[ChangeKind](change.kind for change in left if not change.read_only)
        name = checksum(in_order(left if kinds else self._writes))
        accept = command("sync", f"{selection.options} --accept {name}".strip())
        final = [self._final(result, kinds, accept) for result in self._results]
        stopped, warnings = None, [*run.preflight.warnings, *orphan_warnings]
        if blocked is not None and selection.dry_run and not blocked.wrong_checksum:
            warning = f"{blocked.finding}: a sync would stop here and write nothing. If it is intended: {accept}"
            warnings.insert(0, Instruction(warning))
        elif blocked is not None and not blocked.late:
            advice = f". Nothing was written. Check the plan; if it is intended: {accept}" if kinds else ""
            stopped = f"{blocked.finding}{advice}"
        report = Report(
            run_id=self._run_id,
            dry_run=selection.dry_run,
            checksum=name,
            started=self._started,
            duration_seconds=round(time.monotonic() - self._start_time, 3),
            accounts=len({item.account for item in run.work_items}),
            results=in_order((*run.preflight.results, *final)),
            stopped=stopped,
            interrupted=run.stop.is_set(),
            warnings=tuple(warnings),
            busy=run.busy,
            incomplete=run.preflight.incomplete,
            orphans_searched=run.orphans is not None and not orphan_warnings,
        )
        for observer in run.observers:
            observer.finished(report)
        return report

    def _final(self, result: Result, kinds: Counter[ChangeKind], accept: str) -> Result:
        """`result`; if its change waits for `--accept`, it is reported with the command, which accepts all waiting changes by `kinds`."""
        reason = self._waiting.get(result.ref)
        if reason is None:
            return result
        if kinds.total() > 1:
            counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
            reason = f"{reason} (accepts all waiting changes: {counts})"
        shown = self._run.selection.dry_run or result.outcome not in REMOVALS
        outcome, reason = result.outcome if shown else "skipped", self._run.redact(f"{reason}: {accept}")
        final = replace(result, outcome=outcome, reason=reason)
        self._report(final)
        return final
