"""Metrics of what is known at the moment of a scrape, from the same snapshot as the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from keysync.report.status import AccountStatus, Status

_BREAKER: Final = {"closed": 0, "half_open": 1, "open": 2}


class StatusCollector(Collector):
    """Makes gauges of a snapshot. Labels are names of the configuration, so their number is bounded by it."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing beforehand: registering must not ask for a snapshot."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All gauges, now."""
        status = self._status()
        yield from _of_the_whole(status)
        yield from _of_accounts(status)
        yield from _of_vaults(status)


def _of_the_whole(status: Status) -> Iterator[GaugeMetricFamily]:
    tally = status.tally()
    secrets = GaugeMetricFamily("keysync_secrets", "Secrets by how they stand.", labels=["standing"])
    for standing in ("in_step", "behind", "pending"):
        secrets.add_metric([standing], getattr(tally, standing))
    yield secrets
    yield GaugeMetricFamily("keysync_accounts", "Accounts that the configuration covers.", tally.accounts)
    stopped = "Whether a safety limit keeps passes from writing."
    yield GaugeMetricFamily("keysync_safety_stop", stopped, int(status.stopped is not None))
    refused = "Whether the configuration in force is the one of the file."
    yield GaugeMetricFamily("keysync_config_current", refused, int(status.config_error is None))
    build = GaugeMetricFamily("keysync_build_info", "The version that runs.", labels=["version"])
    build.add_metric([status.version], 1)
    yield build


def _of_accounts(status: Status) -> Iterator[GaugeMetricFamily]:
    attempt = GaugeMetricFamily(
        "keysync_account_last_attempt_timestamp_seconds", "When the account was last looked at.", labels=["account"]
    )
    failures = GaugeMetricFamily("keysync_account_failures", "Looks that failed in a row.", labels=["account"])
    stale = GaugeMetricFamily(
        "keysync_account_stale", "Whether the account was not in step for three intervals.", labels=["account"]
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
        stale.add_metric([account.account], int(account.stale))
        _add_ages(age, account)
    yield from (attempt, failures, stale, age)


def _add_ages(age: GaugeMetricFamily, account: AccountStatus) -> None:
    for secret in account.secrets:
        if secret.since is not None:
            age.add_metric([account.account, secret.key, secret.vault], secret.since.timestamp())


def _of_vaults(status: Status) -> Iterator[GaugeMetricFamily]:
    behind = GaugeMetricFamily("keysync_vault_secrets_behind", "Secrets that are not in step.", labels=["vault"])
    breaker = GaugeMetricFamily(
        "keysync_vault_breaker", "State of the vault's breaker: 0 closed, 1 half open, 2 open.", labels=["vault"]
    )
    for vault in status.vaults:
        behind.add_metric([vault.name], vault.behind)
        breaker.add_metric([vault.name], _BREAKER[vault.breaker])
    yield from (behind, breaker)
