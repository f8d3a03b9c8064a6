"""Metrics of runs and calls, for a registry that is handed in. docs/observability.md lists them, and a test compares."""

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

# A second series beside each counter, which tells when the process began to count, is of no use to anybody here.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no type for it

# Read-only accounts have outcomes of a plan: what they name was not done.
_OUT_OF_STEP: Final = BAD | WRITES | {"skipped"}

OVERDUE: Final = "keysync_run_overdue_timestamp_seconds"
OVERDUE_HELP: Final = "From when on a run is overdue: three intervals after the latest, or past its deadline."

# From a run that finds nothing to do to one that waits for an account until its deadline (`timeouts.account`) and writes then.
_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

# A series that is there before it counts lets a rate see the first event; labels that a reader can know are given at once.
_RUNS: Final[tuple[RunResult, ...]] = ("success", "failed", "stopped", "interrupted")
_NOTIFICATIONS: Final = ("sent", "failed", "dropped")
_SERVICES: Final = ("batch", "key_vault")
_LEFT_OUT: Final = ("busy", "backing_off")
_RELOADS: Final = ("taken", "refused")

_REMOVED: Final = frozenset({"disabled", "deleted"})


class _LastSuccess(Collector):
    """A gauge with a series an account: a number each, where a metric of the library's keeps an object with a lock."""

    def __init__(self) -> None:
        self._moments: dict[str, float | None] = {}
        self._covers = False

    def cover(self, accounts: Iterable[str]) -> None:
        """From now on `accounts` are all that have a series; until it is called, whatever is noted has."""
        self._moments = {account: self._moments.get(account) for account in accounts}
        self._covers = True

    def note(self, account: str, moment: float) -> None:
        """A success, at `moment` in seconds since the epoch."""
        # Not of an account whose orphaned secrets were removed: nothing serves it any more.
        if not self._covers or account in self._moments:
            self._moments[account] = moment

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The gauge without its series, by which a registry knows its name."""
        yield GaugeMetricFamily(
            "keysync_account_last_success_timestamp_seconds",
            "When every secret of the account was last seen in sync or brought there.",
            labels=["account"],
        )

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauge."""
        (gauge,) = self.describe()
        # A copy, since a scrape may read in a thread of its own.
        for account, moment in list(self._moments.items()):
            if moment is not None:
                gauge.add_metric([account], moment)
        yield gauge


class _LogLinesDropped(Collector):
    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(
            "keysync_log_lines_dropped", "Lines of the log that stderr did not take.", log_stream.dropped()
        )


class Metrics:
    """The contract's metrics; a `RunObserver`, a `NotifyObserver` and, by `called`, a `CallObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._vaults: frozenset[str] | None = None
        self._of_runs(registry)
        self._of_calls(registry)
        self._of_the_configuration(registry)
        self._of_the_daemon(registry)

    def _of_runs(self, registry: CollectorRegistry) -> None:
        self._runs = Counter(
            "keysync_runs", "Passes by result: success, failed, stopped or interrupted.", ["result"], registry=registry
        )
        _begin(self._runs, _RUNS)
        self._last_run = Gauge(
            "keysync_last_run_timestamp_seconds",
            "When a run last ended with this result.",
            ["result"],
            registry=registry,
        )
        self._duration = Histogram(
            "keysync_run_duration_seconds", "Wall time of a run.", buckets=_SECONDS, registry=registry
        )
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
            "Accounts whose keys had both changed since the last run.",
            ["vault"],
            registry=registry,
        )
        self._last_success = _LastSuccess()
        registry.register(self._last_success)
        self._orphans = Gauge(
            "keysync_orphans",
            "Secrets that nothing serves any more and that wait to be removed, by the latest whole search.",
            ["vault"],
            registry=registry,
        )

    def _of_calls(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "keysync_azure_requests",
            "Calls to Azure, each attempt.",
            ["service", "operation", "status"],
            registry=registry,
        )
        self._throttled = Counter(
            "keysync_azure_throttled", "Calls that Azure answered with 429.", ["service"], registry=registry
        )
        _begin(self._throttled, _SERVICES)

    def _of_the_configuration(self, registry: CollectorRegistry) -> None:
        self._interval = Gauge(
            "keysync_schedule_interval_seconds",
            "The shortest time between two planned starts of runs.",
            registry=registry,
        )
        self._shards = Gauge(
            "keysync_shards", "Into how many shares the accounts are divided.", ["shard"], registry=registry
        )
        self._expiry = Gauge(
            "keysync_credential_expiry_timestamp_seconds",
            "When the certificate of a credential expires; a client secret does not tell.",
            ["credential"],
            registry=registry,
        )

    def _of_the_daemon(self, registry: CollectorRegistry) -> None:
        self._skipped = Counter(
            "keysync_accounts_skipped",
            "Accounts that were due and left out of a run: busy with an earlier one, or backing off after failures.",
            ["reason"],
            registry=registry,
        )
        _begin(self._skipped, _LEFT_OUT)
        self._reloads = Counter(
            "keysync_config_reloads",
            "Changed configurations that were taken or refused.",
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
            "keysync_build_info", "The versions that run; always 1.", ["version", "python"], registry=registry
        )
        build.labels(__version__, platform.python_version()).set(1)

    # What is counted, and for whom

    def cover(self, accounts: Iterable[str], vaults: Iterable[str]) -> None:
        """From now on `accounts` (ARM ids) and `vaults` are all that there is: series of others go, and do not come again.

        Until it is called everything is counted.
        """
        self._vaults = frozenset(vaults)
        self._last_success.cover(accounts)
        for metric in (self._outcomes, self._verdicts, self._both_changed):
            _keep(metric, "vault", self._vaults)
        _begin(self._both_changed, self._vaults)
        self._orphans.clear()  # what waited may be served again, and may be nothing to remove: the next search tells

    def scheduled(self, interval_seconds: float) -> None:
        """The shortest time between two planned starts, by the configuration."""
        self._interval.set(interval_seconds)

    def divided(self, shard: Shard | None) -> None:
        """Which share of the accounts is served here; None: all of them."""
        self._shards.labels(str(shard or "")).set(1 if shard is None else shard.count)

    def credentials(self, expiries: Mapping[str, datetime]) -> None:
        """When the credentials in use expire, by their names, where that can be told."""
        _keep(self._expiry, "credential", expiries)
        for name, moment in expiries.items():
            self._expiry.labels(name).set(moment.timestamp())

    def overdue(self, moment: datetime, shard: Shard | None) -> None:
        """A one-off run says until when the next one has to have ended; the daemon tells it at each scrape."""
        gauge = Gauge(OVERDUE, OVERDUE_HELP, ["shard"], registry=self._registry)
        gauge.labels(str(shard or "")).set(moment.timestamp())

    def called(self, operation: Operation, status: str) -> None:
        """One attempt of a call ended with `status`."""
        self._requests.labels(operation.service, operation.name, status).inc()
        if status == "429":
            self._throttled.labels(operation.service).inc()

    def skipped(self, *, busy: int, backing_off: int) -> None:
        """So many accounts were due and take no part in the run."""
        self._skipped.labels("busy").inc(busy)
        self._skipped.labels("backing_off").inc(backing_off)

    def reloaded(self, *, taken: bool) -> None:
        """A changed configuration was put in force, or refused."""
        self._reloads.labels("taken" if taken else "refused").inc()

    def sent(self, events: int) -> None:
        """The webhook took `events`."""
        self._notifications.labels("sent").inc(events)

    def failed(self, events: int, reason: str) -> None:  # noqa: ARG002  # the observer's signature
        """The webhook did not take `events`."""
        self._notifications.labels("failed").inc(events)

    def dropped(self, events: int) -> None:
        """`events` were never sent."""
        self._notifications.labels("dropped").inc(events)

    def started(self, run_id: str, work_items: int) -> None:
        """Nothing is counted until a run has ended."""

    def collected(self, run_id: str, account: str) -> None:
        """Nothing is counted until a run has ended."""

    def result(self, run_id: str, result: Result) -> None:  # noqa: ARG002  # the observer's signature
        """Counts one outcome."""
        vault = result.ref.vault
        if not _is_covered(vault, self._vaults):
            return  # of a run that began under the configuration before
        self._outcomes.labels(vault, result.outcome).inc()
        self._verdicts.labels(vault, result.verdict).inc()
        if result.verdict == "both_changed" and result.ref.key == "primary":
            self._both_changed.labels(vault).inc()

    def finished(self, report: Report) -> None:
        """Counts the run and marks each account that is wholly in sync."""
        ended = report.started.timestamp() + report.duration_seconds
        self._runs.labels(result_of(report)).inc()
        self._last_run.labels(result_of(report)).set(ended)
        self._duration.observe(report.duration_seconds)
        if report.dry_run:
            return
        behind = {result.ref.account for result in report.results if result.outcome in _OUT_OF_STEP}
        for account in (result.ref.account for result in report.results):
            if account not in behind:
                self._last_success.note(account, ended)
        self._note_orphans(report)

    def _note_orphans(self, report: Report) -> None:
        if not report.orphans_searched:
            return
        orphans = [one for one in report.results if one.verdict == "orphaned" and one.outcome not in _REMOVED]
        waiting = dict.fromkeys(self._vaults or (), 0) | TallyOf(one.ref.vault for one in orphans)
        for vault, count in waiting.items():
            if _is_covered(vault, self._vaults):
                self._orphans.labels(vault).set(count)

    def write(self, path: Path) -> None:
        """Writes a file for node_exporter's textfile collector, whole or not at all. Raises UsageError."""
        try:
            write_to_textfile(str(replaceable_path(path)), self._registry)
        except OSError as error:
            raise UsageError(f"--metrics-file {path}: cannot be written ({error.strerror})") from error


def result_of(report: Report) -> RunResult:
    """How a run ended, in one word."""
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
    """Removes the series whose `label` is none of `kept`."""
    found = [sample.labels for family in metric.collect() for sample in family.samples]
    for labels in found:
        if labels[label] not in kept:
            metric.remove(*labels.values())
