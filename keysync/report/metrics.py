"""Metrics of runs and calls. docs/observability.md lists them, and a test compares."""

from __future__ import annotations

import platform
from collections import Counter as TallyOf
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
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
from keysync.sync.observers import RunObserver

# Otherwise each counter has a second series with the time when it was created, which is not needed here.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no type for it

# Read-only accounts have the outcomes of a plan: changes that were not made.
_OUT_OF_SYNC: Final = BAD | WRITES | {"skipped"}
_REMOVED: Final = frozenset({"disabled", "deleted"})

OVERDUE: Final = "keysync_run_overdue_timestamp_seconds"
OVERDUE_HELP: Final = "When a run becomes overdue: three intervals after the latest run, or at its deadline."

# From a run without changes to one that waits for an account until its deadline (`timeouts.account`) and then writes.
_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class _LastSuccess(Collector):
    """A gauge with one series for each account. It stores a number each; the library's gauge stores an object with a lock.

    `times` are seconds since 1970, by ARM id; None for an account without a success.
    """

    def __init__(self) -> None:
        self.times: dict[str, float | None] = {}

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The gauge without series, from which the registry learns its name."""
        documentation = "When all secrets of the account were last in sync."
        yield GaugeMetricFamily("keysync_account_last_success_timestamp_seconds", documentation, labels=["account"])

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauge with its series."""
        (gauge,) = self.describe()
        # A copy, since a scrape may run in another thread.
        for account, time in list(self.times.items()):
            if time is not None:
                gauge.add_metric([account], time)
        yield gauge


class _LogLinesDropped(Collector):
    def collect(self) -> Iterator[CounterMetricFamily]:
        documentation = "Log lines that stderr did not accept."
        yield CounterMetricFamily("keysync_log_lines_dropped", documentation, log_stream.dropped())


class Metrics(RunObserver):
    """The metrics in `registry`. `called` is a `CallObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._accounts: frozenset[str] | None = None
        self._vaults: frozenset[str] | None = None
        self._last_success = _LastSuccess()
        registry.register(self._last_success)
        registry.register(_LogLinesDropped())
        self._define_counters(partial(Counter, registry=registry))
        self._define_gauges(partial(Gauge, registry=registry))
        duration = "Duration of a run."
        self._duration = Histogram("keysync_run_duration_seconds", duration, buckets=_BUCKETS, registry=registry)

    def _define_counters(self, counter: partial[Counter]) -> None:
        # Series with known labels start at 0, so that a rate shows the first event.
        self._runs = counter("keysync_runs", "Runs by result: success, failed, stopped or interrupted.", ["result"])
        _begin(self._runs, ("success", "failed", "stopped", "interrupted"))
        outcomes = "Outcomes of secrets in runs."
        self._outcomes = counter("keysync_secret_outcomes", outcomes, ["vault", "outcome"])
        verdicts = "Verdicts of secrets in runs, by comparison with both current keys."
        self._verdicts = counter("keysync_secret_verdicts", verdicts, ["vault", "verdict"])
        both_changed = "Accounts of which both keys had changed since the last run."
        self._both_changed = counter("keysync_both_keys_changed", both_changed, ["vault"])
        requests = "Calls to Azure; each attempt counts."
        self._requests = counter("keysync_azure_requests", requests, ["service", "operation", "status"])
        throttled = "Calls that Azure answered with 429."
        self._throttled = counter("keysync_azure_throttled", throttled, ["service"])
        _begin(self._throttled, ("batch", "key_vault"))
        skipped = "Accounts that were due but skipped in a run: busy in an earlier run, or backing off after failures."
        self._skipped = counter("keysync_accounts_skipped", skipped, ["reason"])
        _begin(self._skipped, ("busy", "backing_off"))
        reloads = "Reloads of a changed configuration: success or refused."
        self._reloads = counter("keysync_config_reloads", reloads, ["result"])
        _begin(self._reloads, ("success", "refused"))
        notifications = "Events for the webhook: sent, failed or dropped."
        self._notifications = counter("keysync_notifications", notifications, ["result"])
        _begin(self._notifications, ("sent", "failed", "dropped"))

    def _define_gauges(self, gauge: partial[Gauge]) -> None:
        last_run = "When a run last ended with this result."
        self._last_run = gauge("keysync_last_run_timestamp_seconds", last_run, ["result"])
        orphans = "Secrets without an account that wait to be removed, by the latest complete search."
        self._orphans = gauge("keysync_orphans", orphans, ["vault"])
        interval = "The shortest time between two planned runs."
        self._interval = gauge("keysync_schedule_interval_seconds", interval)
        self._shards = gauge("keysync_shards", "The number of shards.")
        shard_info = "The shard of this process: always 1. Without shards `index` is empty."
        self._shard_info = gauge("keysync_shard_info", shard_info, ["index", "count"])
        expiry = "When the certificate of a credential expires; unknown for a client secret."
        self._expiry = gauge("keysync_credential_expiry_timestamp_seconds", expiry, ["credential"])
        build = gauge(
            "keysync_build_info", "The running versions of keysync and Python; always 1.", ["version", "python"]
        )
        build.labels(__version__, platform.python_version()).set(1)

    def cover(self, accounts: Iterable[str], vaults: Iterable[str]) -> None:
        """Limits the series to `accounts` (ARM ids) and `vaults`, and removes all others.

        Before the first call, everything is counted.
        """
        self._accounts, self._vaults = frozenset(accounts), frozenset(vaults)
        self._last_success.times = {account: self._last_success.times.get(account) for account in self._accounts}
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

    def notified(self, result: str, events: int) -> None:
        """Counts `events` for the webhook: sent, failed or dropped."""
        self._notifications.labels(result).inc(events)

    def result(self, run_id: str, result: Result) -> None:  # noqa: ARG002  # the observer's signature
        """Counts one outcome."""
        vault = result.ref.vault
        if not _is_covered(vault, self._vaults):
            return  # the run started with the previous configuration
        self._outcomes.labels(vault, result.outcome).inc()
        self._verdicts.labels(vault, result.verdict).inc()

    def finished(self, report: Report) -> None:
        """Counts the run, and notes the time for each account whose secrets are all in sync."""
        ended = report.started.timestamp() + report.duration_seconds
        self._runs.labels(result_of(report)).inc()
        self._last_run.labels(result_of(report)).set(ended)
        self._duration.observe(report.duration_seconds)
        both_changed = (result.ref for result in report.results if result.verdict == "both_changed")
        for _, vault in {(ref.account, ref.vault) for ref in both_changed if _is_covered(ref.vault, self._vaults)}:
            self._both_changed.labels(vault).inc()
        if report.dry_run:
            return
        out_of_sync = {result.ref.account for result in report.results if result.outcome in _OUT_OF_SYNC}
        for account in {result.ref.account for result in report.results} - out_of_sync:
            # An account whose orphaned secrets were removed is no longer covered.
            if _is_covered(account, self._accounts):
                self._last_success.times[account] = ended
        if report.orphans_searched:
            orphans = (each for each in report.results if each.verdict == "orphaned" and each.outcome not in _REMOVED)
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
