"""A pass in the log: one line a change, one for each failure of an account, one summary; stable dotted names."""

from __future__ import annotations

import logging
from typing import Any, Final, TypeAlias

import structlog

from keysync.report.json import summary
from keysync.sync.model import WRITES, ItemRef, Report, Result

_LEVELS: Final = {
    "failed": logging.ERROR,
    "unknown": logging.ERROR,
    "refused": logging.WARNING,
    "skipped": logging.WARNING,
}

# What stays as it is until somebody acts; of a read-only vault that is also what would be done.
_LASTING: Final = frozenset(_LEVELS) | WRITES

_ONE: Final = "regenerate one key at a time, so that those who use the other go on working while the new one arrives"


_Identity: TypeAlias = tuple[object, ...]


class PassLog:
    """Writes passes to the log as they go; a `PassObserver`.

    What is as bad as in the pass before is counted and not told again; the line that ends it says how often it was.
    """

    def __init__(self, logger: Any = None) -> None:  # noqa: ANN401  # structlog's proxy has no type of its own
        self._log = logger or structlog.get_logger("keysync")
        self._told: dict[ItemRef, tuple[_Identity, int]] = {}

    def started(self, run_id: str, scopes: int) -> None:
        """A pass begins."""
        self._log.debug("pass.started", run_id=run_id, scopes=scopes)

    def collected(self, run_id: str, account: str) -> None:
        """Both sides of an account have answered, or failed to."""
        self._log.debug("account.collected", run_id=run_id, account=account)

    def result(self, run_id: str, result: Result) -> None:
        """What became of an item; an unchanged one is no event, but two keys that changed at once are one of their own."""
        ref = result.ref
        repeated = self._repeated(result)
        if repeated is None:
            return
        if result.verdict == "both_changed" and ref.key == "primary":
            self._log.warning(
                "account.both_keys_changed", run_id=run_id, account=ref.account, vault=ref.vault, hint=_ONE
            )
        fields: dict[str, Any] = {
            "run_id": run_id,
            "account": ref.account,
            "vault": ref.vault,
            "secret": ref.secret,
            "key": ref.key,
            "verdict": result.verdict,
        }
        if result.version:
            fields["version"] = result.version
        if result.reason:
            fields["reason"] = result.reason
        if result.error is not None:
            fields |= result.error.to_dict()
        if repeated:
            fields["times_before"] = repeated
        event = "secret.in_step" if result.outcome == "unchanged" else f"secret.{result.outcome}"
        self._log.log(_LEVELS.get(result.outcome, logging.INFO), event, **fields)

    def _repeated(self, result: Result) -> int | None:
        """How often what this result ends had been met in a row; None where there is nothing to tell."""
        before, times = self._told.get(result.ref, ((), 0))
        now = _identity(result)
        if result.outcome not in _LASTING:
            self._told.pop(result.ref, None)
            return None if result.outcome == "unchanged" and not times else times
        if now == before:
            self._told[result.ref] = (now, times + 1)
            return None
        self._told[result.ref] = (now, 1)
        return times

    def finished(self, report: Report) -> None:
        """The summary, an error where a limit stopped the pass."""
        for warning in report.warnings:
            self._log.warning("pass.warning", run_id=report.run_id, reason=warning)
        if report.busy:
            self._log.info("pass.left_out", run_id=report.run_id, busy=report.busy)
        fields = {"run_id": report.run_id, "dry_run": report.dry_run, "duration_seconds": report.duration_seconds}
        if report.stopped:
            self._log.error("pass.stopped", reason=report.stopped, checksum=report.checksum, **fields)
            return
        level = logging.WARNING if report.failed else logging.INFO
        event = "pass.interrupted" if report.interrupted else "pass.finished"
        self._log.log(level, event, **summary(report), **fields)


def _identity(result: Result) -> _Identity:
    """What makes two results the same trouble: codes, never messages, which carry times and ids of requests."""
    error = result.error
    if error is None:
        return (result.outcome, result.verdict)
    return (result.outcome, error.kind, error.http_status, error.codes)
