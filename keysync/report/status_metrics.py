"""Metrics of what is known at the moment of a scrape, from the same snapshot as the page. docs/observability.md lists them."""

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
    """Makes gauges of one snapshot. Labels are names of the configuration, so their number is bounded by it."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All gauges."""
        status = self._status
        yield from _of_the_whole(status)
        yield from _of_accounts(status)
        yield from _of_vaults(status)
        yield _of_credentials(status)


def _of_the_whole(status: Status) -> Iterator[GaugeMetricFamily]:
    tally = status.tally()
    secrets = GaugeMetricFamily("keysync_secrets", "Secrets by how they stand.", labels=["state"])
    for state in ("in_sync", "out_of_sync", "unread", "pending"):
        secrets.add_metric([state], getattr(tally, state))
    yield secrets
    yield GaugeMetricFamily("keysync_accounts", "Accounts that the configuration covers.", tally.accounts)
    states = Counter(account.state for account in status.accounts)
    by_state = GaugeMetricFamily(
        "keysync_accounts_by_state", "Accounts by the state that the page shows.", labels=["state"]
    )
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
    whole = GaugeMetricFamily(
        "keysync_discovery_complete", "Whether the latest listing of `discover` was whole.", labels=[]
    )
    if status.discovery_complete is not None:
        whole.add_metric([], int(status.discovery_complete))
    yield whole
    unserved = GaugeMetricFamily(
        "keysync_accounts_unserved",
        "Accounts that discovery served within the last day and does not serve any more.",
        labels=[],
    )
    if status.leader is not False:
        unserved.add_metric([], len(status.unserved))
    yield unserved
    stopped = "Whether a safety limit keeps runs from writing."
    yield GaugeMetricFamily("keysync_safety_limit_active", stopped, int(status.stopped is not None))
    leader = GaugeMetricFamily("keysync_leader", "Whether this process leads; absent where none is elected.", labels=[])
    if status.leader is not None:
        leader.add_metric([], int(status.leader))
    yield leader
    unready = GaugeMetricFamily(
        "keysync_standby_unready",
        "Whether this replica could not take over, by what is wrong with its Lease; absent where none is elected.",
        labels=["reason"],
    )
    for trouble in _LEASE_TROUBLES if status.leader is not None else ():
        unready.add_metric([trouble], int(status.lease_trouble == trouble))
    yield unready
    refused = "Whether the configuration in force is the one of the file."
    yield GaugeMetricFamily("keysync_config_last_reload_successful", refused, int(status.config_error is None))


def _of_accounts(status: Status) -> Iterator[GaugeMetricFamily]:
    attempt = GaugeMetricFamily(
        "keysync_account_last_attempt_timestamp_seconds", "When the account was last looked at.", labels=["account"]
    )
    failures = GaugeMetricFamily("keysync_account_failures", "Looks that failed in a row.", labels=["account"])
    stale = GaugeMetricFamily(
        "keysync_account_stale", "Whether the account was not in sync for three intervals.", labels=["account"]
    )
    age = GaugeMetricFamily(
        "keysync_secret_version_timestamp_seconds",
        "When the stored version of a key was made.",
        labels=["account", "key", "vault"],
    )
    for account in status.accounts:
        if account.last_attempt is not None:
            attempt.add_metric([account.account], account.last_attempt.timestamp())
        failures.add_metric([account.account], account.failures)
        # Not known of one that was not looked at since the start, nor by a standby: neither must end an alert.
        if status.leader is not False and (account.stale or account.last_success is not None):
            stale.add_metric([account.account], int(account.stale))
        _add_ages(age, account)
    yield from (attempt, failures, stale, age)


def _add_ages(age: GaugeMetricFamily, account: AccountStatus) -> None:
    for secret in account.secrets:
        if secret.since is not None:
            age.add_metric([account.account, secret.key, secret.vault], secret.since.timestamp())


def _of_vaults(status: Status) -> Iterator[GaugeMetricFamily]:
    secrets = GaugeMetricFamily("keysync_vault_secrets", "Secrets that were looked at.", labels=["vault"])
    out_of_sync = GaugeMetricFamily(
        "keysync_vault_secrets_out_of_sync", "Secrets that are known to differ.", labels=["vault"]
    )
    breaker = GaugeMetricFamily(
        "keysync_vault_breaker", "State of the vault's breaker: 0 closed, 1 half open, 2 open.", labels=["vault"]
    )
    for vault in status.vaults:
        secrets.add_metric([vault.name], vault.secrets)
        out_of_sync.add_metric([vault.name], vault.out_of_sync)
        breaker.add_metric([vault.name], _BREAKER[vault.breaker])
    yield from (secrets, out_of_sync, breaker, _by_verdict(status))


def _by_verdict(status: Status) -> GaugeMetricFamily:
    """What drifted, and how: a counter of verdicts cannot tell whether it still does."""
    found = Counter((one.vault, one.verdict) for account in status.accounts for one in account.secrets)
    family = GaugeMetricFamily(
        "keysync_secrets_by_verdict", "Secrets by how they stand to both live keys.", labels=["vault", "verdict"]
    )
    for vault in status.vaults:
        for verdict in _VERDICTS:
            family.add_metric([vault.name, verdict], found[vault.name, verdict])
    return family


def _of_credentials(status: Status) -> GaugeMetricFamily:
    breaker = GaugeMetricFamily(
        "keysync_credential_breaker",
        "State of the credential's breaker: 0 closed, 1 half open, 2 open.",
        labels=["credential"],
    )
    for credential in status.credentials:
        breaker.add_metric([credential.name], _BREAKER[credential.breaker])
    return breaker
