"""The report of a run, and the results on their way to the observer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from keysync.sync.items import WorkItem
from keysync.sync.limits import SafetyCheck
from keysync.sync.model import Preflight, Report, Result, in_order
from keysync.sync.observers import RunObserver
from keysync.sync.orphans import OrphanFindings


class ReportBuilder:
    """Gathers the results of a run, and reports each to the observer as soon as it is final."""

    def __init__(
        self,
        run_id: str,
        observer: RunObserver,
        limits: SafetyCheck,
        *,
        redact: Callable[[str], str],
        clock: Callable[[], datetime],
    ) -> None:
        self._run_id = run_id
        self._observer = observer
        self._limits = limits
        self._redact = redact
        self._started, self._start_time = clock(), time.monotonic()
        self._accounts = 0
        self._preflight = Preflight()
        self._results: list[Result] = []
        self._orphan_warnings: list[str] = []

    def inventory(self, work_items: Sequence[WorkItem], preflight: Preflight) -> None:
        """Reports the start of the run, and the results from before it."""
        self._observer.started(self._run_id, len(work_items))
        self._accounts = len({item.account for item in work_items})
        self._preflight = preflight
        for result in preflight.results:
            self._observer.result(self._run_id, result)

    def collected(self, account: str) -> None:
        """Reports that an account (ARM id) has responded."""
        self._observer.collected(self._run_id, account)

    def result(self, result: Result) -> None:
        """Reports a result, unless its reason is final only at the end of the run."""
        if not self._limits.waits(result):
            self._observer.result(self._run_id, self._redacted(result))

    def add(self, results: Sequence[Result], orphans: OrphanFindings) -> None:
        """Adds the results of one batch."""
        self._results += results
        self._orphan_warnings += orphans.warnings

    def finish(self, *, interrupted: bool, busy: int, searched: bool) -> Report:
        """Reports the remaining results and the end of the run. `searched`: whether the run searched for orphans."""
        limits = self._limits
        limits.settle(self._results)
        final = [self._redacted(limits.explained(result)) for result in self._results]
        for before, result in zip(self._results, final, strict=True):
            if limits.waits(before):
                self._observer.result(self._run_id, result)
        report = Report(
            run_id=self._run_id,
            dry_run=limits.dry_run,
            checksum=limits.checksum,
            started=self._started,
            duration_seconds=round(time.monotonic() - self._start_time, 3),
            accounts=self._accounts,
            results=in_order((*self._preflight.results, *final)),
            stopped=limits.stopped,
            interrupted=interrupted,
            warnings=(*limits.warnings, *self._preflight.warnings, *self._orphan_warnings),
            busy=busy,
            incomplete=self._preflight.incomplete,
            orphans_searched=searched and not self._orphan_warnings,
        )
        self._observer.finished(report)
        return report

    def _redacted(self, result: Result) -> Result:
        """A reason quotes tags, which anyone with access to the vault may have written."""
        return result if result.reason is None else replace(result, reason=self._redact(result.reason))
