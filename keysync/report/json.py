"""The report as JSON, in the contract's shape."""

from __future__ import annotations

from collections import Counter
from typing import Final

from keysync.report.console import to_json
from keysync.sync.model import Report

# Always present, so that a script need not check; other outcomes appear when they occur.
_ALWAYS: Final = ("created", "updated", "unchanged", "refused", "failed")


def summary(report: Report) -> dict[str, int]:
    """The number of accounts, and of items by outcome."""
    counts = Counter(result.outcome for result in report.results)
    named: dict[str, int] = {"accounts": report.accounts, **dict.fromkeys(_ALWAYS, 0)}
    return {**named, **{outcome: counts[outcome] for outcome in sorted(counts)}}


def render(report: Report) -> str:
    """The report as one JSON document; `started` in UTC."""
    return to_json(
        {
            "run_id": report.run_id,
            "dry_run": report.dry_run,
            "checksum": report.checksum,
            "started": report.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "duration_seconds": report.duration_seconds,
            "summary": summary(report),
            "items": [result.to_dict() for result in report.results],
            "stopped": report.stopped,
            "interrupted": report.interrupted,
            "warnings": list(report.warnings),
        }
    )
