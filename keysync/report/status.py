"""The status of the daemon at one moment: what the page, the probes, `/api/status` and the metrics show.

It is immutable and contains no values of secrets, so all of it may be printed. Every time is an aware datetime; in JSON it is
text in UTC, to the second.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

from keysync.calls import BreakerPhase
from keysync.config.model import Account
from keysync.failures import FailureRecord
from keysync.report.causes import cause_of
from keysync.sources.discovery import Unserved
from keysync.sync.model import BAD, DONE, WRITES, ItemRef, Result, RunResult, Verdict

AccountState: TypeAlias = Literal[
    "in_sync",
    "changed",  # just written
    "drift",  # differs and was not written: read-only, or a dry run
    "refused",
    "failing",
    "needs_accept",  # a safety limit blocked the write
    "pending",  # not tried yet
]
VaultState: TypeAlias = Literal["ok", "failing", "read_only", "pending"]
LeaseTrouble: TypeAlias = Literal["never_read", "stale"]
SyncState: TypeAlias = Literal["in_sync", "out_of_sync", "unread", "pending"]

WRITTEN: Final = frozenset(DONE.values())
FAILED: Final = frozenset({"failed", "unknown"})


def sync_state_of(result: Result) -> SyncState:
    """Whether a secret is in sync after `result`. Secrets without a result are ``pending``."""
    if result.outcome in WRITTEN or result.outcome == "unchanged":
        return "in_sync"
    # After a failed read, or a write without a known effect, the current secret is unknown.
    unread = result.outcome == "unknown" or (result.outcome == "failed" and result.verdict == "unknown")
    return "unread" if unread else "out_of_sync"


def verdict_of(result: Result) -> Verdict:
    """The verdict of a secret after `result`; a written secret is in sync."""
    return "in_sync" if result.outcome in WRITTEN else result.verdict


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """One account, by the latest complete run over it.

    `schedule`: its schedule in words. `results`: one for each secret, sorted by reference; none before the first run.
    `changed`: when this process last wrote the secrets. `failures`: failed runs in a row. `needs_accept`: a safety limit
    blocked a write. `busy` (a run waits for the account), `stale` and `next_try` are as of the snapshot.
    """

    account: Account
    schedule: str
    read_only: bool = False
    results: tuple[Result, ...] = ()
    changed: Mapping[ItemRef, datetime] = field(default_factory=dict[ItemRef, datetime])
    last_attempt: datetime | None = None
    last_success: datetime | None = None
    failures: int = 0
    needs_accept: bool = False
    busy: bool = False
    stale: bool = False
    next_try: datetime | None = None

    @property
    def state(self) -> AccountState:
        """The worst state of its secrets."""
        outcomes = {result.outcome for result in self.results}
        if not outcomes:
            return "pending"
        if outcomes & FAILED:
            return "failing"
        if self.needs_accept:
            return "needs_accept"
        if outcomes & BAD:
            return "refused"
        if outcomes & (WRITES | {"skipped"}):
            return "drift"
        return "changed" if outcomes & WRITTEN else "in_sync"

    @property
    def pending(self) -> int:
        """The number of secrets that no run has checked yet."""
        return 0 if self.results else len(self.account.vaults) * len(self.account.secret_names())

    def since(self, result: Result) -> datetime | None:
        """When the current version of a secret was created."""
        return result.since or self.changed.get(result.ref)

    def to_dict(self) -> dict[str, Any]:
        """The account in `/api/status`, with times as they are."""
        account = self.account
        names = ("last_attempt", "last_success", "next_try", "failures", "stale", "read_only", "busy", "schedule")
        return {
            "account": account.resource_id,
            "name": account.name,
            "resource_group": account.resource_group,
            "subscription_id": account.subscription_id,
            "state": self.state,
            **{name: getattr(self, name) for name in names},
            "secrets": [self._secret(result) for result in self.results],
        }

    def _secret(self, result: Result) -> dict[str, Any]:
        secret = result.to_dict()
        del secret["account"]
        times = {"changed_at": self.changed.get(result.ref), "since": self.since(result)}
        cause = None if result.error is None else cause_of(result)
        return {**secret, "verdict": verdict_of(result), "cause": cause, **times}


@dataclass(frozen=True, slots=True)
class VaultStatus:
    """One vault, by its name in the configuration. `out_of_sync` of its `secrets` are known to differ."""

    name: str
    url: str
    state: VaultState = "pending"
    breaker: BreakerPhase = "closed"
    secrets: int = 0
    out_of_sync: int = 0
    error: FailureRecord | None = None
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CredentialStatus:
    """One credential, named by its type, and a number from the second of a type on. `retry_at` is the next request for a token."""

    name: str
    breaker: BreakerPhase = "closed"
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """A completed write."""

    time: datetime
    result: Result


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The last finished run, with the summary of its report."""

    run_id: str
    started: datetime
    duration_seconds: float
    result: RunResult
    summary: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Status:
    """All data of the page, the probes and the metrics.

    - `every`: the schedule in words.
    - `stopped`: the message of a safety limit, with its numbers and the command that accepts the plan.
    - `config_error`: why a reload was refused.
    - `leader`: None without an election. A standby (False) checks nothing.
    - `shard`: the shard of this process, None without sharding.
    - `overdue`: when the process stops being live unless a run starts, or the current one ends. None for a standby, and if no
      run is planned.
    - `discovery_complete`: whether the latest listing of `discover` was complete. None without one and for a standby.
    - `unserved`: accounts that discovery covered within the last day and no longer covers.
    - `ready`: the first run is done; for a standby, the Lease was read within the last `lease_duration`. `ready_reason` says
      why not, or that the process is a standby. `lease_trouble` says why a standby could not take over.
    - `live`: the event loop is responsive and runs start. `live_reason` says why not.
    - `writes`: newest first.
    """

    now: datetime
    version: str
    started: datetime
    every: str
    owner: str | None = None
    read_only: bool = False
    next_run: datetime | None = None
    last_run: RunStatus | None = None
    stopped: str | None = None
    config_error: str | None = None
    leader: bool | None = None
    shard: str | None = None
    overdue: datetime | None = None
    discovery_complete: bool | None = None
    unserved: tuple[Unserved, ...] = ()
    ready: bool = False
    ready_reason: str | None = None
    lease_trouble: LeaseTrouble | None = None
    live: bool = True
    live_reason: str | None = None
    accounts: tuple[AccountStatus, ...] = ()
    vaults: tuple[VaultStatus, ...] = ()
    credentials: tuple[CredentialStatus, ...] = ()
    writes: tuple[WriteRecord, ...] = ()

    @property
    def stale_accounts(self) -> list[str]:
        """ARM ids of the accounts that have not been in sync for too long."""
        return [account.account.resource_id for account in self.accounts if account.stale]

    def counts(self) -> dict[str, int]:
        """The number of accounts, of their secrets, and of secrets by `SyncState`."""
        states = Counter[str](sync_state_of(result) for account in self.accounts for result in account.results)
        states["pending"] = sum(account.pending for account in self.accounts)
        by_state = {state: states[state] for state in ("in_sync", "out_of_sync", "unread", "pending")}
        return {"accounts": len(self.accounts), "secrets": sum(by_state.values()), **by_state}


def render(status: Status) -> bytes:
    """The status as one JSON document.

    Built account by account: one call for thousands of accounts would hold the GIL for 0.1 s, which pauses the event loop
    even if the call runs in another thread.
    """
    head = {item.name: getattr(status, item.name) for item in fields(status) if item.name != "accounts"}
    head |= {"stale_accounts": status.stale_accounts, "counts": status.counts()}
    accounts = ", ".join(_json(account.to_dict()) for account in status.accounts)
    return f'{_json(head)[:-1]}, "accounts": [{accounts}]}}'.encode()


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:  # noqa: ANN401  # data of any shape
    match value:
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case FailureRecord():
            return value.to_dict()
        case Unserved():
            return {"account": value.account, "reason": value.reason}
        case WriteRecord():
            written = value.result.to_dict()
            names = ("account", "key", "vault", "secret", "outcome", "version")
            return {"time": value.time, **{name: written[name] for name in names}}
        case _:
            return {item.name: getattr(value, item.name) for item in fields(value)}
