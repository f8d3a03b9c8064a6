"""Metrics of passes and calls, for a registry that is handed in."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, write_to_textfile

from keysync.azure.retry import Operation
from keysync.errors import UsageError
from keysync.report.status import PassResult
from keysync.sync.model import BAD, WRITES, Report, Result

# A second series beside each counter, which tells when the process began to count, is of no use to anybody here.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no type for it

# Read-only accounts have outcomes of a plan: what they name was not done.
_OUT_OF_STEP: Final = BAD | WRITES | {"skipped"}


class Metrics:
    """The contract's metrics; a `PassObserver` and, by `called`, a `CallObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._runs = Counter(
            "keysync_runs", "Passes by result: success, failed, stopped or interrupted.", ["result"], registry=registry
        )
        self._duration = Histogram("keysync_run_duration_seconds", "Wall time of a pass.", registry=registry)
        self._outcomes = Counter(
            "keysync_secret_outcomes", "Outcomes of items.", ["vault", "outcome"], registry=registry
        )
        self._verdicts = Counter(
            "keysync_secret_verdicts",
            "How each item was found, against both live keys.",
            ["vault", "verdict"],
            registry=registry,
        )
        self._both_changed = Counter(
            "keysync_both_keys_changed",
            "Accounts whose keys had both changed since the last pass.",
            ["vault"],
            registry=registry,
        )
        self._notifications = Counter(
            "keysync_notifications", "Events for the webhook: sent, failed or dropped.", ["result"], registry=registry
        )
        self._last_success = Gauge(
            "keysync_account_last_success_timestamp_seconds",
            "When every secret of the account was last seen in step or brought there.",
            ["account"],
            registry=registry,
        )
        self._requests = Counter(
            "keysync_azure_requests",
            "Calls to Azure, each attempt.",
            ["service", "operation", "status"],
            registry=registry,
        )
        self._throttled = Counter(
            "keysync_azure_throttled", "Calls that Azure answered with 429.", ["service"], registry=registry
        )

    def called(self, operation: Operation, status: str) -> None:
        """One attempt of a call ended with `status`."""
        self._requests.labels(operation.service, operation.name, status).inc()
        if status == "429":
            self._throttled.labels(operation.service).inc()

    def sent(self, events: int) -> None:
        """The webhook took `events`."""
        self._notifications.labels("sent").inc(events)

    def failed(self, events: int, reason: str) -> None:  # noqa: ARG002  # the observer's signature
        """The webhook did not take `events`."""
        self._notifications.labels("failed").inc(events)

    def dropped(self, events: int) -> None:
        """`events` were never sent."""
        self._notifications.labels("dropped").inc(events)

    def started(self, run_id: str, scopes: int) -> None:
        """Nothing is counted until a pass has ended."""

    def collected(self, run_id: str, account: str) -> None:
        """Nothing is counted until a pass has ended."""

    def result(self, run_id: str, result: Result) -> None:  # noqa: ARG002  # the observer's signature
        """Counts one outcome."""
        self._outcomes.labels(result.ref.vault, result.outcome).inc()
        self._verdicts.labels(result.ref.vault, result.verdict).inc()
        if result.verdict == "both_changed" and result.ref.key == "primary":
            self._both_changed.labels(result.ref.vault).inc()

    def finished(self, report: Report) -> None:
        """Counts the pass and marks each account that is wholly in step."""
        self._runs.labels(result_of(report)).inc()
        self._duration.observe(report.duration_seconds)
        if report.dry_run:
            return
        behind = {result.ref.account for result in report.results if result.outcome in _OUT_OF_STEP}
        ended = report.started.timestamp() + report.duration_seconds
        for account in {result.ref.account for result in report.results} - behind:
            self._last_success.labels(account).set(ended)

    def write(self, path: Path) -> None:
        """Writes a file for node_exporter's textfile collector, whole or not at all. Raises UsageError."""
        try:
            write_to_textfile(str(path), self._registry)
        except OSError as error:
            raise UsageError(f"--metrics-file {path}: cannot be written ({error.strerror})") from error


def result_of(report: Report) -> PassResult:
    """How a pass ended, in one word."""
    if report.stopped:
        return "stopped"
    if report.interrupted:
        return "interrupted"
    return "failed" if report.failed else "success"
