"""Made-up snapshots of a daemon, for the page and the probes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from keysync.config.model import Account
from keysync.failures import CloudError, FailureRecord
from keysync.report.status import (
    AccountStatus,
    CredentialStatus,
    RunStatus,
    Status,
    VaultStatus,
    WriteRecord,
)
from keysync.sources.discovery import Unserved
from keysync.sync.model import ItemRef, Result

NOW = datetime(2026, 11, 24, 5, 22, 0, tzinfo=UTC)
SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
GROUP = "default-azurebatch-japaneast"
DENIED = FailureRecord(
    kind="cloud_error",
    summary="HTTP 403: AuthorizationFailed: the client does not have authorization to perform listKeys",
    http_status=403,
    cloud_error=CloudError(
        "AuthorizationFailed",
        "The client with object id '22222222-0000-4000-8000-000000000000' does not have authorization to perform action "
        "'Microsoft.Batch/batchAccounts/listKeys/action' over this scope.",
    ),
    request_id="0f1e2d3c-request",
    correlation_id="0f1e2d3c-correlation",
    client_request_id="0f1e2d3c-client",
    hint="grant the identity Microsoft.Batch/batchAccounts/listKeys/action on the account; a new assignment takes minutes",
)


def ago(**length: float) -> datetime:
    """A time before NOW."""
    return NOW - timedelta(**length)


def arm_id(name: str) -> str:
    """The ARM id of an account."""
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Batch/batchAccounts/{name}"


def secret(account: str, key: str = "primary", *, vault: str = "main", **more: Any) -> Result:
    """The latest result of a secret; by default it is in sync."""
    fields: dict[str, Any] = {
        "outcome": "unchanged",
        "verdict": "in_sync",
        "version": "4f0c1d2e3b4a59687766554433221100",
        "since": ago(days=40),
    }
    return Result(ItemRef(arm_id(account), key, vault, f"{account}-{key}-key"), **{**fields, **more})


def account(name: str, *, subscription_id: str = SUBSCRIPTION, group: str = GROUP, **more: Any) -> AccountStatus:
    """An account with two secrets, in sync unless `results` says otherwise."""
    fields: dict[str, Any] = {
        "last_attempt": ago(seconds=100),
        "last_success": ago(seconds=100),
        "next_try": NOW + timedelta(seconds=200),
        "schedule": "every 5m",
        "results": (secret(name), secret(name, "secondary")),
    }
    return AccountStatus(Account(subscription_id, group, name, ("main",)), **{**fields, **more})


def unseen(name: str, **more: Any) -> AccountStatus:
    """An account that no run has checked."""
    return account(name, last_success=None, last_attempt=None, results=(), **more)


def failing(name: str, failures: int = 3, *, error: FailureRecord = DENIED, **more: Any) -> AccountStatus:
    """An account whose keys cannot be listed."""
    wrong: dict[str, Any] = {
        "outcome": "failed",
        "verdict": "unknown",
        "reason": error.summary,
        "error": error,
        "version": None,
    }
    results = (secret(name, **wrong), secret(name, "secondary", **wrong))
    return account(name, **{"failures": failures, "last_success": ago(hours=5), "results": results, **more})


def refused(name: str, reason: str) -> AccountStatus:
    """An account with one unmanaged secret."""
    wrong = secret(name, outcome="refused", verdict="unmanaged", reason=reason)
    return account(name, results=(wrong, secret(name, "secondary")), last_success=None)


def make_status(*accounts: AccountStatus, **more: Any) -> Status:
    """A snapshot of a healthy daemon with one vault."""
    fields: dict[str, Any] = {
        "now": NOW,
        "version": "0.1.0",
        "started": ago(days=3),
        "every": "every 5m",
        "next_run": NOW + timedelta(seconds=200),
        "last_run": RunStatus("run-1", ago(seconds=101), 0.41, "success", {"accounts": len(accounts), "unchanged": 40}),
        "ready": True,
        "accounts": accounts,
        "vaults": (VaultStatus("main", "https://kv-render.vault.azure.net", "ok", secrets=2 * len(accounts)),),
        "credentials": (CredentialStatus("workload_identity"),),
    }
    return Status(**{**fields, **more})


def varied() -> Status:
    """One account for each state, two vaults, and some writes."""
    unmanaged = (
        "the secret holds another value and is not tagged as keysync's for this key (managed by 'terraform'): "
        "not overwritten. Choose another name in `secrets`, or remove it if it is not needed"
    )
    written = secret("simulation", outcome="updated", verdict="stale", since=None)
    waiting: dict[str, Any] = {
        "outcome": "skipped",
        "verdict": "stale",
        "reason": "a safety limit stopped the run: not written",
    }
    drift: dict[str, Any] = {
        "outcome": "update",
        "verdict": "swapped",
        "reason": "the stored value is not the live key",
    }
    both = tuple(
        secret("renderfarm", key, vault=vault) for vault in ("main", "disaster") for key in ("primary", "secondary")
    )
    accounts = (
        account("renderfarm", results=both),
        account(
            "simulation",
            results=(written, secret("simulation", "secondary")),
            changed={written.ref: ago(seconds=99)},
        ),
        refused("handmade", unmanaged),
        failing("norole", stale=True),
        failing("entraonly", failures=1_200, stale=True),
        account("watched", results=(secret("watched", **drift),), read_only=True, schedule="every 1h"),
        account("waiting", results=(secret("waiting", **waiting), secret("waiting", "secondary")), needs_accept=True),
        unseen("newcomer", busy=True),
        account("sampleacct"),
        account("nightly", stale=True, last_success=ago(hours=30)),
    )
    throttled = FailureRecord(kind="throttled", summary="HTTP 429", http_status=429, hint="the vault asks for patience")
    return make_status(
        *accounts,
        owner="tokyo",
        leader=True,
        shard="0/3",
        overdue=NOW + timedelta(seconds=800),
        discovery_complete=True,
        unserved=(Unserved(arm_id("retired"), "it is not provisioned: its state is Deleting", 0.0),),
        vaults=(
            VaultStatus("main", "https://kv-render.vault.azure.net", "ok", secrets=17, out_of_sync=3),
            VaultStatus(
                "disaster",
                "https://kv-render-dr.vault.azure.net",
                "failing",
                "open",
                secrets=2,
                error=throttled,
                retry_at=NOW + timedelta(seconds=42),
            ),
        ),
        credentials=(
            CredentialStatus("workload_identity"),
            CredentialStatus("client_secret", "open", NOW + timedelta(seconds=42)),
        ),
        writes=tuple(
            WriteRecord(ago(minutes=7 * n + 1), secret("simulation", key, outcome="updated", version=f"{n:032x}"))
            for n, key in enumerate(("primary", "secondary", "primary"))
        ),
        last_run=RunStatus(
            "run-1",
            ago(seconds=101),
            0.41,
            "failed",
            {"accounts": 10, "updated": 1, "unchanged": 11, "refused": 1, "failed": 4},
        ),
    )


def fleet(size: int) -> Status:
    """Many accounts, a few of them failing."""
    return make_status(*(failing(f"acct{n:05}") if n % 97 == 13 else account(f"acct{n:05}") for n in range(size)))
