"""The status of the daemon at one moment, as immutable data without values of secrets, so all of it may be printed.

Every time is an aware datetime; in JSON it is text in UTC, to the second.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias, cast

from keysync.sync.model import Verdict

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
Breaker: TypeAlias = Literal["closed", "open", "half_open"]
RunResult: TypeAlias = Literal["success", "failed", "stopped", "interrupted"]
LeaseTrouble: TypeAlias = Literal["never_read", "stale"]
SyncState: TypeAlias = Literal["in_sync", "out_of_sync", "unread", "pending"]

_DONE: Final = frozenset({"created", "updated", "adopted", "recovered", "disabled", "deleted", "unchanged"})


def sync_state_of(outcome: str | None, verdict: Verdict | None) -> SyncState:
    """Whether a secret is in sync, by its outcome; without an outcome by its verdict."""
    if outcome is None:
        if verdict in (None, "unknown"):
            return "pending"
        return "in_sync" if verdict == "in_sync" else "out_of_sync"
    if outcome in _DONE:
        return "in_sync"
    # After a failed read, or a write without a known effect, the current secret is unknown.
    unread = outcome == "unknown" or (outcome == "failed" and verdict in (None, "unknown"))
    return "unread" if unread else "out_of_sync"


@dataclass(frozen=True, slots=True)
class SecretStatus:
    """One key in one vault. `outcome` is the last one, as in the report; `error` is the contract's error object."""

    key: str
    vault: str
    secret: str
    outcome: str | None = None
    verdict: Verdict | None = None
    version: str | None = None
    reason: str | None = None
    error: Mapping[str, Any] | None = None
    cause: str | None = None
    """Equal for failures with the same cause, whose messages contain different times and ids."""
    changed_at: datetime | None = None
    since: datetime | None = None
    """When the current version was created."""

    @property
    def state(self) -> SyncState:
        """Whether the secret is in sync."""
        return sync_state_of(self.outcome, self.verdict)


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """One account: `account` is its ARM id, `failures` the number of failed tries in a row, `schedule` its schedule in words."""

    account: str
    name: str
    resource_group: str
    subscription_id: str
    state: AccountState = "pending"
    last_attempt: datetime | None = None
    last_success: datetime | None = None
    next_try: datetime | None = None
    failures: int = 0
    stale: bool = False
    read_only: bool = False
    busy: bool = False
    schedule: str = ""
    secrets: tuple[SecretStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class VaultStatus:
    """One vault, by its name in the configuration. `out_of_sync` of its `secrets` are known to differ."""

    name: str
    url: str
    state: VaultState = "pending"
    breaker: Breaker = "closed"
    secrets: int = 0
    out_of_sync: int = 0
    error: Mapping[str, Any] | None = None
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CredentialStatus:
    """One credential, named by its type, and a number from the second of a type on. `retry_at` is the next request for a token."""

    name: str
    breaker: Breaker = "closed"
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class UnservedAccount:
    """An account that was covered within the last day and no longer is: its ARM id and the reason."""

    account: str
    reason: str


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """One completed write: `account` is the ARM id, `outcome` as in the report."""

    time: datetime
    account: str
    key: str
    vault: str
    secret: str
    outcome: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The last finished run, with the summary of its report."""

    run_id: str
    started: datetime
    duration_seconds: float
    result: RunResult
    summary: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Tally:
    """Numbers of accounts and secrets. Each secret is in sync, out of sync (known to differ), unread (unknown) or pending."""

    accounts: int
    secrets: int
    in_sync: int
    out_of_sync: int
    unread: int
    pending: int


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
    - `stale_accounts`: ARM ids of accounts that have not been in sync for too long.
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
    unserved: tuple[UnservedAccount, ...] = ()
    ready: bool = False
    ready_reason: str | None = None
    lease_trouble: LeaseTrouble | None = None
    live: bool = True
    live_reason: str | None = None
    stale_accounts: tuple[str, ...] = ()
    accounts: tuple[AccountStatus, ...] = ()
    vaults: tuple[VaultStatus, ...] = ()
    credentials: tuple[CredentialStatus, ...] = ()
    writes: tuple[WriteRecord, ...] = ()

    def tally(self) -> Tally:
        """Counts the accounts and their secrets."""
        counts: dict[SyncState, int] = {"in_sync": 0, "out_of_sync": 0, "unread": 0, "pending": 0}
        for account in self.accounts:
            for secret in account.secrets:
                counts[secret.state] += 1
        return Tally(accounts=len(self.accounts), secrets=sum(counts.values()), **counts)

    def to_dict(self) -> dict[str, Any]:
        """The status as plain data for JSON; `counts` is the tally."""
        return {**_head(self), "accounts": _plain(self.accounts)}


def render(status: Status) -> bytes:
    """`to_dict` as one JSON document.

    Built account by account: one call for thousands of accounts would hold the GIL for 0.1 s, which pauses the event loop
    even if the call runs in another thread.
    """
    return "".join(_pieces(status)).encode()


def _pieces(status: Status) -> Iterator[str]:
    yield json.dumps(_head(status), ensure_ascii=False)[:-1]
    yield ', "accounts": ['
    for number, account in enumerate(status.accounts):
        yield (", " if number else "") + json.dumps(_plain(account), ensure_ascii=False)
    yield "]}"


def _head(status: Status) -> dict[str, Any]:
    head = {item.name: _plain(getattr(status, item.name)) for item in fields(status) if item.name != "accounts"}
    return {**head, "counts": _plain(status.tally())}


def _plain(value: Any) -> Any:  # noqa: ANN401  # data of any shape
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in cast("Mapping[object, object]", value).items()}
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    return [_plain(item) for item in value]
