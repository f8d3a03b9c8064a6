"""A pass in the log: one line a change, one for each failure of an account, one summary; stable dotted names."""

from __future__ import annotations

import logging
from typing import Any, Final

import structlog

from keysync.report.json import summary
from keysync.sync.model import Report, Result

_LEVELS: Final = {
    "failed": logging.ERROR,
    "unknown": logging.ERROR,
    "refused": logging.WARNING,
    "skipped": logging.WARNING,
}

_ONE: Final = "regenerate one key at a time, so that those who use the other go on working while the new one arrives"


class PassLog:
    """Writes a pass to the log as it goes; a `PassObserver`."""

    def __init__(self, logger: Any = None) -> None:  # noqa: ANN401  # structlog's proxy has no type of its own
        self._log = logger or structlog.get_logger("keysync")

    def started(self, run_id: str, scopes: int) -> None:
        """A pass begins."""
        self._log.debug("pass.started", run_id=run_id, scopes=scopes)

    def collected(self, run_id: str, account: str) -> None:
        """Both sides of an account have answered, or failed to."""
        self._log.debug("account.collected", run_id=run_id, account=account)

    def result(self, run_id: str, result: Result) -> None:
        """What became of an item; an unchanged one is no event, but two keys that changed at once are one of their own."""
        ref = result.ref
        if result.verdict == "both_changed" and ref.key == "primary":
            self._log.warning(
                "account.both_keys_changed", run_id=run_id, account=ref.account, vault=ref.vault, hint=_ONE
            )
        if result.outcome == "unchanged":
            return
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
        self._log.log(_LEVELS.get(result.outcome, logging.INFO), f"secret.{result.outcome}", **fields)

    def finished(self, report: Report) -> None:
        """The summary, an error where a limit stopped the pass."""
        for warning in report.warnings:
            self._log.warning("pass.warning", run_id=report.run_id, reason=warning)
        fields = {"run_id": report.run_id, "dry_run": report.dry_run, "duration_seconds": report.duration_seconds}
        if report.stopped:
            self._log.error("pass.stopped", reason=report.stopped, checksum=report.checksum, **fields)
            return
        level = logging.WARNING if report.failed else logging.INFO
        event = "pass.interrupted" if report.interrupted else "pass.finished"
        self._log.log(level, event, **summary(report), **fields)
