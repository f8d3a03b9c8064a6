"""The report of a run, and the results on their way to the observer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from keysync.errors import Instruction
from keysync.sync.limits import Blocked, accept_message, checksum
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
from keysync.sync.observers import RunObserver

# The outcomes of a change that the next run plans again.
_LEFT: Final = frozenset[Outcome]({*BAD, *WRITES, "skipped"})


class ReportBuilder:
    """Gathers the results of a run and its follow-up runs, and reports each to the observer as soon as it is final.

    `report` has what is known at the start. `options`: options to repeat in suggested commands. `redact` masks secrets in text.
    """

    def __init__(self, report: Report, observer: RunObserver, options: str, redact: Callable[[str], str]) -> None:
        self._report = report
        self._observer = observer
        self._options = options
        self._redact = redact
        self._start_time = time.monotonic()
        self._writes: list[Change] = []
        self._results: list[Result] = []
        # Items whose reason ends with the command that accepts them, which is known only at the end of the run.
        self._waiting: dict[ItemRef, str] = {}

    def started(self, work_items: int) -> None:
        """Reports the start of the run, and the results from before it."""
        self._observer.started(self._report.run_id, work_items)
        for result in self._report.results:
            self._observer.result(self._report.run_id, result)

    def collected(self, account: str) -> None:
        """Reports that an account (ARM id) has responded."""
        self._observer.collected(self._report.run_id, account)

    def planned(self, plan: Plan, blocked: Blocked | None, *, accepted: bool) -> None:
        """Adds a plan that is about to be applied. `accepted`: a person accepted it."""
        self._writes += plan.writes
        for change in plan.writes:
            if blocked is None and change.needs_accept and not accepted:
                self._waiting[change.ref] = change.needs_accept
            elif blocked is not None and blocked.late and not change.read_only:
                self._waiting[change.ref] = blocked.reason

    def result(self, result: Result) -> None:
        """Adds the result of an item."""
        result = self._redacted(result)
        self._results.append(result)
        if result.ref not in self._waiting:
            self._observer.result(self._report.run_id, result)

    def finish(self, blocked: Blocked | None, *, interrupted: bool, warnings: Sequence[str], searched: bool) -> Report:
        """Reports the remaining results and the end of the run.

        `warnings` are those of the search for orphans, if one was `searched`.
        """
        refs = {result.ref for result in self._results if result.outcome in _LEFT}
        left = [change for change in self._writes if change.ref in refs]
        kinds = Counter[ChangeKind](change.kind for change in left if not change.read_only)
        name = checksum(in_order(left if kinds else self._writes))
        accept = command("sync", f"{self._options} --accept {name}".strip())
        final = [self._explained(result, kinds, accept) for result in self._results]
        for result in final:
            if result.ref in self._waiting:
                self._observer.result(self._report.run_id, result)
        self._report = replace(
            self._report,
            checksum=name,
            duration_seconds=round(time.monotonic() - self._start_time, 3),
            results=in_order((*self._report.results, *final)),
            interrupted=interrupted,
            warnings=(*self._report.warnings, *warnings),
            orphans_searched=searched and not warnings,
        )
        if blocked is not None and not blocked.late:
            self._report = self._stopped(blocked, accept if kinds else None)
        self._observer.finished(self._report)
        return self._report

    def _stopped(self, blocked: Blocked, accept: str | None) -> Report:
        """The report of a run that `blocked` stopped, or would stop if it were no dry run."""
        if self._report.dry_run and not blocked.wrong_checksum:
            warning = f"{blocked.finding}: a sync would stop here and write nothing. If it is intended: {accept}"
            return replace(self._report, warnings=(Instruction(warning), *self._report.warnings))
        advice = f". Nothing was written. Check the plan; if it is intended: {accept}" if accept else ""
        return replace(self._report, stopped=f"{blocked.finding}{advice}")

    def _explained(self, result: Result, kinds: Counter[ChangeKind], accept: str) -> Result:
        """`result`; if its change waits for `--accept`, with the command that accepts it."""
        reason = self._waiting.get(result.ref)
        if reason is None:
            return result
        shown = self._report.dry_run or result.outcome not in REMOVALS
        outcome = result.outcome if shown else "skipped"
        return self._redacted(replace(result, outcome=outcome, reason=accept_message(reason, kinds, accept)))

    def _redacted(self, result: Result) -> Result:
        """A reason quotes tags, which anyone with access to the vault may have written."""
        return result if result.reason is None else replace(result, reason=self._redact(result.reason))
