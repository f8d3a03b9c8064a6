"""Metrics of runs and calls, and of the status at a scrape. docs/observability.md lists them, and a test compares."""

from __future__ import annotations

import platform
from collections import Counter as TallyOf
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
    write_to_textfile,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from keysync import __version__, log_stream
from keysync.calls import Operation
from keysync.errors import UsageError
from keysync.files import replaceable_path
from keysync.report.status import AccountState, LeaseTrouble, Status, SyncState, verdict_of
from keysync.sources.shard import Shard
from keysync.sync.model import BAD, WRITES, Report, Result, Verdict
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

_BREAKER: Final = {"closed": 0, "half_open": 1, "open": 2}
_BREAKER_HELP: Final = "State of the {}'s circuit breaker: 0 closed, 1 half open, 2 open."
_Series: TypeAlias = Iterable[tuple[tuple[str, ...], float]]
"""The labels and the value of each series."""


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
        last_success = "When all secrets of the account were last in sync."
        self._last_success = gauge("keysync_account_last_success_timestamp_seconds", last_success, ["account"])
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
        _keep(self._last_success, "account", self._accounts)
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
        self._runs.labels(report.result).inc()
        self._last_run.labels(report.result).set(ended)
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
                self._last_success.labels(account).set(ended)
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


class StatusCollector(Collector):
    """The metrics of `registry`, if any, and gauges of one snapshot.

    Labels are names in the configuration, which bounds the number of series.
    """

    def __init__(self, status: Status, registry: Collector | None = None) -> None:
        self._status = status
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        if self._registry is not None:
            yield from self._registry.collect()
        yield from _of_runs(self._status)
        yield from _of_process(self._status)
        yield from _of_accounts(self._status)
        yield from _of_vaults(self._status)


def _gauge(name: str, documentation: str, labels: list[str], series: _Series) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=labels)
    for values, value in series:
        family.add_metric(values, value)
    return family


def _single(name: str, documentation: str, value: float | None) -> GaugeMetricFamily:
    """A gauge with one series, or none if `value` is None."""
    return _gauge(name, documentation, [], [] if value is None else [((), value)])


def _of_runs(status: Status) -> Iterator[GaugeMetricFamily]:
    counts, states = status.counts(), TallyOf(account.state for account in status.accounts)
    secrets = (((state,), counts[state]) for state in get_args(SyncState))
    yield _gauge("keysync_secrets", "Secrets by state.", ["state"], secrets)
    yield _single("keysync_accounts", "Accounts that the configuration covers.", counts["accounts"])
    by_state = (((state,), states[state]) for state in get_args(AccountState))
    yield _gauge("keysync_accounts_by_state", "Accounts by state, as on the page.", ["state"], by_state)
    next_run = None if status.next_run is None else status.next_run.timestamp()
    yield _single("keysync_next_run_timestamp_seconds", "When the next run is planned.", next_run)
    overdue = [] if status.overdue is None else [((status.shard or "",), status.overdue.timestamp())]
    yield _gauge(OVERDUE, OVERDUE_HELP, ["shard"], overdue)
    complete = "Whether the latest listing of `discover` was complete."
    yield _single("keysync_discovery_complete", complete, status.discovery_complete)
    unserved = "Accounts that discovery covered within the last day and no longer covers."
    yield _single("keysync_accounts_unserved", unserved, None if status.leader is False else len(status.unserved))
    yield _single("keysync_safety_limit_active", "Whether a safety limit blocks writes.", status.stopped is not None)


def _of_process(status: Status) -> Iterator[GaugeMetricFamily]:
    leader = "Whether this process is the leader; absent without an election."
    yield _single("keysync_leader", leader, status.leader)
    unready = "Whether this standby could not take over, by the problem with its Lease; absent without an election."
    troubles = () if status.leader is None else get_args(LeaseTrouble)
    active = (((trouble,), trouble == status.lease_trouble) for trouble in troubles)
    yield _gauge("keysync_standby_unready", unready, ["reason"], active)
    in_force = "Whether the configuration file is in force; 0 after a change was refused."
    yield _single("keysync_config_last_reload_successful", in_force, status.config_error is None)
    breakers = (((credential.name,), _BREAKER[credential.breaker]) for credential in status.credentials)
    yield _gauge("keysync_credential_breaker", _BREAKER_HELP.format("credential"), ["credential"], breakers)


def _of_accounts(status: Status) -> Iterator[GaugeMetricFamily]:
    by_id = [((account.account.resource_id,), account) for account in status.accounts]
    attempted = "When a run last checked the account."
    attempts = ((labels, account.last_attempt.timestamp()) for labels, account in by_id if account.last_attempt)
    yield _gauge("keysync_account_last_attempt_timestamp_seconds", attempted, ["account"], attempts)
    failures = ((labels, account.failures) for labels, account in by_id)
    yield _gauge("keysync_account_failures", "Failed runs of the account in a row.", ["account"], failures)
    # Unknown before the first check after a start, and on a standby. Neither may end an alert.
    known = () if status.leader is False else by_id
    stale = ((labels, account.stale) for labels, account in known if account.stale or account.last_success)
    not_in_sync = "Whether the account has not been in sync for three intervals."
    yield _gauge("keysync_account_stale", not_in_sync, ["account"], stale)
    ages = (
        ((*labels, result.ref.key, result.ref.vault), since.timestamp())
        for labels, account in by_id
        for result in account.results
        if (since := account.since(result)) is not None
    )
    created = "When the stored version of a key was created."
    yield _gauge("keysync_secret_version_timestamp_seconds", created, ["account", "key", "vault"], ages)


def _of_vaults(status: Status) -> Iterator[GaugeMetricFamily]:
    vaults = [((vault.name,), vault) for vault in status.vaults]
    secrets = ((labels, vault.secrets) for labels, vault in vaults)
    yield _gauge("keysync_vault_secrets", "Secrets that were read.", ["vault"], secrets)
    differing = ((labels, vault.out_of_sync) for labels, vault in vaults)
    yield _gauge("keysync_vault_secrets_out_of_sync", "Secrets that are known to differ.", ["vault"], differing)
    breakers = ((labels, _BREAKER[vault.breaker]) for labels, vault in vaults)
    yield _gauge("keysync_vault_breaker", _BREAKER_HELP.format("vault"), ["vault"], breakers)
    # A counter of verdicts does not show whether a drift still exists.
    results = (result for account in status.accounts for result in account.results)
    counts = TallyOf((result.ref.vault, verdict_of(result)) for result in results)
    verdicts: tuple[Verdict, ...] = get_args(Verdict)
    current = (((vault.name, verdict), counts[vault.name, verdict]) for vault in status.vaults for verdict in verdicts)
    compared = "Secrets by current verdict, by comparison with both current keys."
    yield _gauge("keysync_secrets_by_verdict", compared, ["vault", "verdict"], current)
