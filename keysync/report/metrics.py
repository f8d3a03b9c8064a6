"""Metrics of runs and calls. docs/observability.md lists them, and a test compares."""

from __future__ import annotations

import platform
from collections import Counter as TallyOf
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from keysync import __version__, log_stream
from keysync.calls import Operation
from keysync.errors import UsageError
from keysync.files import replaceable_path
from keysync.report.status import RunResult
from keysync.sources.shard import Shard
from keysync.sync.model import BAD, WRITES, Report, Result

# Otherwise each counter has a second series with the time when it was created, which is not needed here.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no type for it

# Read-only accounts have the outcomes of a plan: changes that were not made.
_OUT_OF_SYNC: Final = BAD | WRITES | {"skipped"}

OVERDUE: Final = "keysync_run_overdue_timestamp_seconds"
OVERDUE_HELP: Final = "When a run becomes overdue: three intervals after the latest run, or at its deadline."

# From a run without changes to one that waits for an account until its deadline (`timeouts.account`) and then writes.
_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

# Series with known labels start at 0, so that a rate shows the first event.
_RUNS: Final[tuple[RunResult, ...]] = ("success", "failed", "stopped", "interrupted")
_NOTIFICATIONS: Final = ("sent", "failed", "dropped")
_SERVICES: Final = ("batch", "key_vault")
_SKIPPED: Final = ("busy", "backing_off")
_RELOADS: Final = ("success", "refused")

_REMOVED: Final = frozenset({"disabled", "deleted"})


class _LastSuccess(Collector):
    """A gauge with one series for each account. It stores a number each; the library's gauge stores an object with a lock."""

    def __init__(self) -> None:
        self._times: dict[str, float | None] = {}
        self._is_limited = False

    def cover(self, accounts: Iterable[str]) -> None:
        """Limits the series to `accounts`. Before the first call, each noted account has a series."""
        self._times = {account: self._times.get(account) for account in accounts}
        self._is_limited = True

    def note(self, account: str, time: float) -> None:
        """Records a success at `time`, in seconds since 1970."""
        # An account whose orphaned secrets were removed is no longer covered.
        if not self._is_limited or account in self._times:
            self._times[account] = time

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The gauge without series, from which the registry learns its name."""
        yield GaugeMetricFamily(
            "keysync_account_last_success_timestamp_seconds",
            "When all secrets of the account were last in sync.",
            labels=["account"],
        )

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauge with its series."""
        (gauge,) = self.describe()
        # A copy, since a scrape may run in another thread.
        for account, time in list(self._times.items()):
            if time is not None:
                gauge.add_metric([account], time)
        yield gauge


class _LogLinesDropped(Collector):
    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(
            "keysync_log_lines_dropped", "Log lines that stderr did not accept.", log_stream.dropped()
        )


class Metrics:
    """The metrics in `registry`. It is a `RunObserver` and a `NotifyObserver`; `called` is a `CallObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._vaults: frozenset[str] | None = None
        self._of_runs(registry)
        self._of_calls(registry)
        self._of_configuration(registry)
        self._of_daemon(registry)

    def _of_runs(self, registry: CollectorRegistry) -> None:
        self._runs = Counter(
            "keysync_runs", "Runs by result: success, failed, stopped or interrupted.", ["result"], registry=registry
        )
        _begin(self._runs, _RUNS)
        self._last_run = Gauge(
            "keysync_last_run_timestamp_seconds",
            "When a run last ended with this result.",
            ["result"],
            registry=registry,
        )
        self._duration = Histogram(
            "keysync_run_duration_seconds", "Duration of a run.", buckets=_BUCKETS, registry=registry
        )
        self._outcomes = Counter(
            "keysync_secret_outcomes", "Outcomes of secrets in runs.", ["vault", "outcome"], registry=registry
        )
        self._verdicts = Counter(
            "keysync_secret_verdicts",
            "Verdicts of secrets in runs, by comparison with both current keys.",
            ["vault", "verdict"],
            registry=registry,
        )
        self._both_changed = Counter(
            "keysync_both_keys_changed",
            "Accounts of which both keys had changed since the last run.",
            ["vault"],
            registry=registry,
        )
        self._last_success = _LastSuccess()
        registry.register(self._last_success)
        self._orphans = Gauge(
            "keysync_orphans",
            "Secrets without an account that wait to be removed, by the latest complete search.",
            ["vault"],
            registry=registry,
        )

    def _of_calls(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "keysync_azure_requests",
            "Calls to Azure; each attempt counts.",
            ["service", "operation", "status"],
            registry=registry,
        )
        self._throttled = Counter(
            "keysync_azure_throttled", "Calls that Azure answered with 429.", ["service"], registry=registry
        )
        _begin(self._throttled, _SERVICES)

    def _of_configuration(self, registry: CollectorRegistry) -> None:
        self._interval = Gauge(
            "keysync_schedule_interval_seconds",
            "The shortest time between two planned runs.",
            registry=registry,
        )
        self._shards = Gauge("keysync_shards", "The number of shards.", registry=registry)
        info = "The shard of this process: always 1. Without shards `index` is empty."
        self._shard_info = Gauge("keysync_shard_info", info, ["index", "count"], registry=registry)
        self._expiry = Gauge(
            "keysync_credential_expiry_timestamp_seconds",
            "When the certificate of a credential expires; unknown for a client secret.",
            ["credential"],
            registry=registry,
        )

    def _of_daemon(self, registry: CollectorRegistry) -> None:
        self._skipped = Counter(
            "keysync_accounts_skipped",
            "Accounts that were due but skipped in a run: busy in an earlier run, or backing off after failures.",
            ["reason"],
            registry=registry,
        )
        _begin(self._skipped, _SKIPPED)
        self._reloads = Counter(
            "keysync_config_reloads",
            "Reloads of a changed configuration: success or refused.",
            ["result"],
            registry=registry,
        )
        _begin(self._reloads, _RELOADS)
        self._notifications = Counter(
            "keysync_notifications", "Events for the webhook: sent, failed or dropped.", ["result"], registry=registry
        )
        _begin(self._notifications, _NOTIFICATIONS)
        registry.register(_LogLinesDropped())
        build = Gauge(
            "keysync_build_info",
            "The running versions of keysync and Python; always 1.",
            ["version", "python"],
            registry=registry,
        )
        build.labels(__version__, platform.python_version()).set(1)

    def cover(self, accounts: Iterable[str], vaults: Iterable[str]) -> None:
        """Limits the series to `accounts` (ARM ids) and `vaults`, and removes all others.

        Before the first call, everything is counted.
        """
        self._vaults = frozenset(vaults)
        self._last_success.cover(accounts)
        for metric in (self._outcomes, self._verdicts, self._both_changed):
            _keep(metric, "vault", self._vaults)
        _begin(self._both_changed, self._vaults)
        self._orphans.clear()  # orphans may be covered again; the next search shows

    def scheduled(self, interval_seconds: float) -> None:
        """Sets the shortest time between two planned runs."""
        self._interval.set(interval_seconds)

    def sharded(self, shard: Shard | None) -> None:
        """Sets the shard of this process; None for no sharding."""
        index, count = ("", 1) if shard is None else (str(shard.index), shard.count)
        self._shards.set(count)
        self._shard_info.labels(index, str(count)).set(1)

    def credentials(self, expiries: Mapping[str, datetime]) -> None:
        """Sets when the credentials expire, by name, as far as known."""
        _keep(self._expiry, "credential", expiries)
        for name, expiry in expiries.items():
            self._expiry.labels(name).set(expiry.timestamp())

    def overdue(self, moment: datetime, shard: Shard | None) -> None:
        """Sets when the next one-off run is overdue. (For the daemon, `StatusCollector` has that.)"""
        gauge = Gauge(OVERDUE, OVERDUE_HELP, ["shard"], registry=self._registry)
        gauge.labels(str(shard or "")).set(moment.timestamp())

    def called(self, operation: Operation, status: str) -> None:
        """Counts one attempt of a call that ended with `status`."""
        self._requests.labels(operation.service, operation.name, status).inc()
        if status == "429":
            self._throttled.labels(operation.service).inc()

    def skipped(self, *, busy: int, backing_off: int) -> None:
        """Counts accounts that were due but are not in the run."""
        self._skipped.labels("busy").inc(busy)
        self._skipped.labels("backing_off").inc(backing_off)

    def reloaded(self, *, succeeded: bool) -> None:
        """Counts a changed configuration, which is in force or was refused."""
        self._reloads.labels("success" if succeeded else "refused").inc()

    def sent(self, events: int) -> None:
        """Counts `events` that the webhook accepted."""
        self._notifications.labels("sent").inc(events)

    def failed(self, events: int, reason: str) -> None:  # noqa: ARG002  # the observer's signature
        """Counts `events` that the webhook did not accept."""
        self._notifications.labels("failed").inc(events)

    def dropped(self, events: int) -> None:
        """Counts `events` that were never sent."""
        self._notifications.labels("dropped").inc(events)

    def started(self, run_id: str, work_items: int) -> None:
        """No-op: a run is counted when it ends."""

    def collected(self, run_id: str, account: str) -> None:
        """No-op: a run is counted when it ends."""

    def result(self, run_id: str, result: Result) -> None:  # noqa: ARG002  # the observer's signature
        """Counts one outcome."""
        vault = result.ref.vault
        if not _is_covered(vault, self._vaults):
            return  # the run started with the previous configuration
        self._outcomes.labels(vault, result.outcome).inc()
        self._verdicts.labels(vault, result.verdict).inc()
        if result.verdict == "both_changed" and result.ref.key == "primary":
            self._both_changed.labels(vault).inc()

    def finished(self, report: Report) -> None:
        """Counts the run, and notes the time for each account whose secrets are all in sync."""
        ended = report.started.timestamp() + report.duration_seconds
        self._runs.labels(result_of(report)).inc()
        self._last_run.labels(result_of(report)).set(ended)
        self._duration.observe(report.duration_seconds)
        if report.dry_run:
            return
        out_of_sync = {result.ref.account for result in report.results if result.outcome in _OUT_OF_SYNC}
        for account in (result.ref.account for result in report.results):
            if account not in out_of_sync:
                self._last_success.note(account, ended)
        self._note_orphans(report)

    def _note_orphans(self, report: Report) -> None:
        if not report.orphans_searched:
            return
        orphans = [item for item in report.results if item.verdict == "orphaned" and item.outcome not in _REMOVED]
        waiting = dict.fromkeys(self._vaults or (), 0) | TallyOf(orphan.ref.vault for orphan in orphans)
        for vault, count in waiting.items():
            if _is_covered(vault, self._vaults):
                self._orphans.labels(vault).set(count)

    def write(self, path: Path) -> None:
        """Writes a file for node_exporter's textfile collector, atomically. Raises UsageError."""
        try:
            write_to_textfile(str(replaceable_path(path)), self._registry)
        except OSError as error:
            raise UsageError(f"--metrics-file {path}: cannot be written ({error.strerror})") from error


def result_of(report: Report) -> RunResult:
    """The result of a run as a label."""
    if report.stopped:
        return "stopped"
    if report.interrupted:
        return "interrupted"
    return "failed" if report.failed else "success"


def _begin(counter: Counter, values: Iterable[str]) -> None:
    for value in values:
        counter.labels(value)


def _is_covered(name: str, covered: Collection[str] | None) -> bool:
    return covered is None or name in covered


def _keep(metric: Counter | Gauge, label: str, kept: Collection[str]) -> None:
    """Removes the series whose `label` is not in `kept`."""
    series = [sample.labels for family in metric.collect() for sample in family.samples]
    for labels in series:
        if labels[label] not in kept:
            metric.remove(*labels.values())
