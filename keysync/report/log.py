"""A run in the log: one line for each change, one for each failure of an account, one summary. Event names are stable."""

from __future__ import annotations

import logging
from typing import Any, Final

import structlog

from keysync.report.causes import affected_accounts, cause_of
from keysync.sync.model import WRITES, ItemRef, Report, Result
from keysync.sync.observers import RunObserver

_LEVELS: Final = {
    "failed": logging.ERROR,
    "unknown": logging.ERROR,
    "refused": logging.WARNING,
    "skipped": logging.WARNING,
}
# Outcomes that last until someone acts; in a read-only vault also changes that would be made.
_LASTING: Final = frozenset(_LEVELS) | WRITES

_ONE_KEY_HINT: Final = (
    "regenerate one key at a time, so that consumers of the other key keep working until the new one arrives"
)


class RunLog(RunObserver):
    """Logs runs as they happen.

    A problem that is the same as in the run before is counted and not logged again. The line that ends it has the count.
    """

    def __init__(self) -> None:
        self._log: Any = structlog.get_logger("keysync")
        self._logged: dict[ItemRef, tuple[str, int]] = {}
        self._causes: dict[str, dict[str, list[Result]]] = {}
        self._both_changed: set[tuple[str, str, str]] = set()  # the accounts of a run that were logged, by vault

    def started(self, run_id: str, work_items: int) -> None:
        """Logs the start of a run."""
        self._log.debug("run.started", run_id=run_id, scopes=work_items)

    def collected(self, run_id: str, account: str) -> None:
        """Logs that the keys and secrets of an account were read, or that this failed."""
        self._log.debug("account.collected", run_id=run_id, account=account)

    def result(self, run_id: str, result: Result) -> None:
        """Logs an item's outcome, unless it is unchanged. Two keys that changed at once have an event of their own."""
        ref = result.ref
        repeated = self._repeated(result)
        if repeated is None:
            return
        account = (run_id, ref.account, ref.vault)
        if result.verdict == "both_changed" and account not in self._both_changed:
            self._both_changed.add(account)
            self._log.warning(
                "account.both_keys_changed", run_id=run_id, account=ref.account, vault=ref.vault, hint=_ONE_KEY_HINT
            )
        item = {"account": ref.account, "vault": ref.vault, "secret": ref.secret, "key": ref.key}
        known = {"version": result.version, "reason": result.reason, "times_before": repeated}
        fields: dict[str, Any] = {
            "run_id": run_id,
            **item,
            "verdict": result.verdict,
            **{name: value for name, value in known.items() if value},
            **(result.error.to_dict() if result.error is not None else {}),
        }
        event = "secret.in_sync" if result.outcome == "unchanged" else f"secret.{result.outcome}"
        self._log.log(self._level(run_id, result), event, **fields)

    def _level(self, run_id: str, result: Result) -> int:
        """ERROR for the first failure of a cause in a run, DEBUG for the others."""
        level = _LEVELS.get(result.outcome, logging.INFO)
        if result.error is None or result.outcome != "failed":
            return level
        same = self._causes.setdefault(run_id, {}).setdefault(cause_of(result), [])
        same.append(result)
        return level if len(same) == 1 else logging.DEBUG

    def _log_causes(self, run_id: str) -> None:
        """One line for each cause that affects more than one secret; its first failure is already logged as an error."""
        for group in self._causes.pop(run_id, {}).values():
            error = group[0].error
            if len(group) > 1 and error is not None:
                self._log.warning(
                    "run.cause",
                    run_id=run_id,
                    reason=error.summary,
                    secrets=len(group),
                    affected=affected_accounts({result.ref.account for result in group}),
                    **error.to_dict(),
                )

    def _repeated(self, result: Result) -> int | None:
        """How many runs in a row had the problem that this result ends; None if there is nothing to log."""
        before, times = self._logged.get(result.ref, ("", 0))
        if result.outcome not in _LASTING:
            self._logged.pop(result.ref, None)
            return None if result.outcome == "unchanged" and not times else times
        now = cause_of(result)
        if now == before:
            self._logged[result.ref] = (now, times + 1)
            return None
        self._logged[result.ref] = (now, 1)
        return times

    def finished(self, report: Report) -> None:
        """Logs the summary; as an error if a safety limit stopped the run."""
        self._log_causes(report.run_id)
        self._both_changed = {account for account in self._both_changed if account[0] != report.run_id}
        for warning in report.warnings:
            self._log.warning("run.warning", run_id=report.run_id, reason=warning)
        if report.busy:
            self._log.info("run.skipped", run_id=report.run_id, busy=report.busy)
        fields = {"run_id": report.run_id, "dry_run": report.dry_run, "duration_seconds": report.duration_seconds}
        if report.stopped:
            self._log.error("run.stopped", reason=report.stopped, checksum=report.checksum, **fields)
            return
        level = logging.WARNING if report.failed else logging.INFO
        event = "run.interrupted" if report.interrupted else "run.finished"
        self._log.log(level, event, **report.summary(), **fields)
