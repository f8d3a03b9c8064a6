"""Metrics of the status at a scrape, from the same snapshot as the page. docs/observability.md lists them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias, get_args

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from keysync.report.metrics import OVERDUE, OVERDUE_HELP
from keysync.report.status import AccountState, LeaseTrouble, Status, SyncState, verdict_of
from keysync.sync.model import Verdict

_BREAKER: Final = {"closed": 0, "half_open": 1, "open": 2}
_BREAKER_HELP: Final = "State of the {}'s circuit breaker: 0 closed, 1 half open, 2 open."
_Series: TypeAlias = Iterable[tuple[tuple[str, ...], float]]
"""The labels and the value of each series."""


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
    counts, states = status.counts(), Counter(account.state for account in status.accounts)
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
    counts = Counter((result.ref.vault, verdict_of(result)) for result in results)
    verdicts: tuple[Verdict, ...] = get_args(Verdict)
    current = (((vault.name, verdict), counts[vault.name, verdict]) for vault in status.vaults for verdict in verdicts)
    compared = "Secrets by current verdict, by comparison with both current keys."
    yield _gauge("keysync_secrets_by_verdict", compared, ["vault", "verdict"], current)
