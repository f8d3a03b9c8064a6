"""Metrics of the status at a scrape, from the same snapshot as the page. docs/observability.md lists them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, get_args

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from keysync.report.metrics import OVERDUE, OVERDUE_HELP
from keysync.report.status import AccountState, AccountStatus, LeaseTrouble, Status
from keysync.sync.model import Verdict

_BREAKER: Final = {"closed": 0, "half_open": 1, "open": 2}
_LEASE_TROUBLES: Final[tuple[LeaseTrouble, ...]] = get_args(LeaseTrouble)
_STATES: Final[tuple[AccountState, ...]] = get_args(AccountState)
_VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)


class StatusCollector(Collector):
    """Gauges of one snapshot. Labels are names in the configuration, which bounds the number of series."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All gauges."""
        status = self._status
        yield from _of_process(status)
        yield from _of_accounts(status)
        yield from _of_vaults(status)
        yield _of_credentials(status)


def _of_process(status: Status) -> Iterator[GaugeMetricFamily]:
    tally = status.tally()
    secrets = GaugeMetricFamily("keysync_secrets", "Secrets by state.", labels=["state"])
    for state in ("in_sync", "out_of_sync", "unread", "pending"):
        secrets.add_metric([state], getattr(tally, state))
    yield secrets
    yield GaugeMetricFamily("keysync_accounts", "Accounts that the configuration covers.", tally.accounts)
    states = Counter(account.state for account in status.accounts)
    by_state = GaugeMetricFamily("keysync_accounts_by_state", "Accounts by state, as on the page.", labels=["state"])
    for state in _STATES:
        by_state.add_metric([state], states[state])
    yield by_state
    planned = GaugeMetricFamily("keysync_next_run_timestamp_seconds", "When the next run is planned.", labels=[])
    if status.next_run is not None:
        planned.add_metric([], status.next_run.timestamp())
    yield planned
    overdue = GaugeMetricFamily(OVERDUE, OVERDUE_HELP, labels=["shard"])
    if status.overdue is not None:
        overdue.add_metric([status.shard or ""], status.overdue.timestamp())
    yield overdue
    complete = GaugeMetricFamily(
        "keysync_discovery_complete", "Whether the latest listing of `discover` was complete.", labels=[]
    )
    if status.discovery_complete is not None:
        complete.add_metric([], int(status.discovery_complete))
    yield complete
    unserved = GaugeMetricFamily(
        "keysync_accounts_unserved",
        "Accounts that discovery covered within the last day and no longer covers.",
        labels=[],
    )
    if status.leader is not False:
        unserved.add_metric([], len(status.unserved))
    yield unserved
    limit_help = "Whether a safety limit blocks writes."
    yield GaugeMetricFamily("keysync_safety_limit_active", limit_help, int(status.stopped is not None))
    leader = GaugeMetricFamily(
        "keysync_leader", "Whether this process is the leader; absent without an election.", labels=[]
    )
    if status.leader is not None:
        leader.add_metric([], int(status.leader))
    yield leader
    unready = GaugeMetricFamily(
        "keysync_standby_unready",
        "Whether this standby could not take over, by the problem with its Lease; absent without an election.",
        labels=["reason"],
    )
    for trouble in _LEASE_TROUBLES if status.leader is not None else ():
        unready.add_metric([trouble], int(status.lease_trouble == trouble))
    yield unready
    reload_help = "Whether the configuration file is in force; 0 after a change was refused."
    yield GaugeMetricFamily("keysync_config_last_reload_successful", reload_help, int(status.config_error is None))


def _of_accounts(status: Status) -> Iterator[GaugeMetricFamily]:
    attempt = GaugeMetricFamily(
        "keysync_account_last_attempt_timestamp_seconds", "When a run last checked the account.", labels=["account"]
    )
    failures = GaugeMetricFamily("keysync_account_failures", "Failed runs of the account in a row.", labels=["account"])
    stale = GaugeMetricFamily(
        "keysync_account_stale", "Whether the account has not been in sync for three intervals.", labels=["account"]
    )
    age = GaugeMetricFamily(
        "keysync_secret_version_timestamp_seconds",
        "When the stored version of a key was created.",
        labels=["account", "key", "vault"],
    )
    for account in status.accounts:
        if account.last_attempt is not None:
            attempt.add_metric([account.account], account.last_attempt.timestamp())
        failures.add_metric([account.account], account.failures)
        # Unknown before the first check after a start, and on a standby. Neither may end an alert.
        if status.leader is not False and (account.stale or account.last_success is not None):
            stale.add_metric([account.account], int(account.stale))
        _add_ages(age, account)
    yield from (attempt, failures, stale, age)


def _add_ages(age: GaugeMetricFamily, account: AccountStatus) -> None:
    for secret in account.secrets:
        if secret.since is not None:
            age.add_metric([account.account, secret.key, secret.vault], secret.since.timestamp())


def _of_vaults(status: Status) -> Iterator[GaugeMetricFamily]:
    secrets = GaugeMetricFamily("keysync_vault_secrets", "Secrets that were read.", labels=["vault"])
    out_of_sync = GaugeMetricFamily(
        "keysync_vault_secrets_out_of_sync", "Secrets that are known to differ.", labels=["vault"]
    )
    breaker = GaugeMetricFamily(
        "keysync_vault_breaker",
        "State of the vault's circuit breaker: 0 closed, 1 half open, 2 open.",
        labels=["vault"],
    )
    for vault in status.vaults:
        secrets.add_metric([vault.name], vault.secrets)
        out_of_sync.add_metric([vault.name], vault.out_of_sync)
        breaker.add_metric([vault.name], _BREAKER[vault.breaker])
    yield from (secrets, out_of_sync, breaker, _by_verdict(status))


def _by_verdict(status: Status) -> GaugeMetricFamily:
    """Secrets by current verdict. A counter of verdicts does not show whether a drift still exists."""
    counts = Counter((secret.vault, secret.verdict) for account in status.accounts for secret in account.secrets)
    family = GaugeMetricFamily(
        "keysync_secrets_by_verdict",
        "Secrets by current verdict, by comparison with both current keys.",
        labels=["vault", "verdict"],
    )
    for vault in status.vaults:
        for verdict in _VERDICTS:
            family.add_metric([vault.name, verdict], counts[vault.name, verdict])
    return family


def _of_credentials(status: Status) -> GaugeMetricFamily:
    breaker = GaugeMetricFamily(
        "keysync_credential_breaker",
        "State of the credential's circuit breaker: 0 closed, 1 half open, 2 open.",
        labels=["credential"],
    )
    for credential in status.credentials:
        breaker.add_metric([credential.name], _BREAKER[credential.breaker])
    return breaker
