"""What the daemon knows at one moment, as frozen data that may be printed whole: nothing here holds a value of a secret.

Every time is an aware datetime; in JSON it is text in UTC, to the second.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

from keysync.sync.model import Verdict

AccountState: TypeAlias = Literal[
    "in_sync",
    "changed",  # just written
    "drift",  # seen to differ and not written: read-only, or a dry run
    "refused",
    "failing",
    "needs_accept",  # a safety limit stopped the writing
    "pending",  # not tried yet
]
VaultState: TypeAlias = Literal["ok", "failing", "read_only", "pending"]
Breaker: TypeAlias = Literal["closed", "open", "half_open"]
RunResult: TypeAlias = Literal["success", "failed", "stopped", "interrupted"]
LeaseTrouble: TypeAlias = Literal["never_read", "stale"]
SyncState: TypeAlias = Literal["in_sync", "out_of_sync", "unread", "pending"]

_DONE: Final = frozenset({"created", "updated", "adopted", "recovered", "disabled", "deleted", "unchanged"})


def standing_of(outcome: str | None, verdict: Verdict | None) -> SyncState:
    """Whether a vault holds what it should, by the outcome; without an outcome by the verdict."""
    if outcome is None:
        if verdict in (None, "unknown"):
            return "pending"
        return "in_sync" if verdict == "in_sync" else "out_of_sync"
    if outcome in _DONE:
        return "in_sync"
    # A side that did not answer, or a write without a known effect, says nothing about what the vault holds now.
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
    """Equal for failures with one cause, whose messages differ by times and ids."""
    changed_at: datetime | None = None
    since: datetime | None = None
    """When the version that stands there was made."""

    @property
    def state(self) -> SyncState:
        """Whether the vault holds what it should."""
        return standing_of(self.outcome, self.verdict)


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """One account: `account` is its ARM id, `failures` how many tries failed in a row, `schedule` when it is tried, in words."""

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
    """One vault, by the configuration's name. `out_of_sync` of its `secrets` are known to differ."""

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
    """One credential, by its type; the second of a type is numbered. `retry_at` is when a token is asked for again."""

    name: str
    breaker: Breaker = "closed"
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class UnservedAccount:
    """An account that was served within the last day and is not any more: its ARM id, and why."""

    account: str
    reason: str


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """One write that was done: `account` is the ARM id, `outcome` as in the report."""

    time: datetime
    account: str
    key: str
    vault: str
    secret: str
    outcome: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The last whole run. `summary` is that of the report."""

    run_id: str
    started: datetime
    duration_seconds: float
    result: RunResult
    summary: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Tally:
    """How many there are: every secret is one of in sync, behind (known to differ), unread (not known) and pending."""

    accounts: int
    secrets: int
    in_sync: int
    out_of_sync: int
    unread: int
    pending: int


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that a page or a probe tells.

    `every` is the schedule in words, `stopped` the message of a safety stop with its numbers and the command that accepts
    the plan, `config_error` why a reload was refused, `stale_accounts` the ARM ids of accounts that were not in sync for too
    long, `writes` the newest first. `ready` says that the first run is done or, of a standby, that the Lease was read within the
    last `lease_duration`; `ready_reason` says why not, or that it stands by; `lease_trouble` why a standby could not take over.
    `live` says that the loop turns and runs start, `live_reason` why not. `leader` is None where nobody is elected; a standby (False) looks at nothing.
    `shard` is the share of the accounts that is served, None for all. `overdue` is from when on the process is not live unless a
    pass starts, or the one under way ends; None for a standby, and where no start is planned. `discovery_complete` says whether
    the latest listing of `discover` was whole, None without any and for a standby. `unserved` are accounts that discovery served
    within the last day and does not serve any more.
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
        """All of it as plain data for JSON, with `counts`: the tally."""
        return {**_head(self), "accounts": _plain(self.accounts)}


def render(status: Status) -> bytes:
    """`to_dict` as one JSON document.

    Account by account: one call for thousands of them would hold the interpreter for a tenth of a second, and from
    a thread beside the event loop that is a pause of the loop too.
    """
    return "".join(_pieces(status)).encode()


def _pieces(status: Status) -> Iterator[str]:
    yield json.dumps(_head(status), ensure_ascii=False)[:-1]
    yield ', "accounts": ['
    for number, account in enumerate(status.accounts):
        yield (", " if number else "") + json.dumps(_plain(account), ensure_ascii=False)
    yield "]}"


def _head(status: Status) -> dict[str, Any]:
    told = {one.name: _plain(getattr(status, one.name)) for one in fields(status) if one.name != "accounts"}
    return {**told, "counts": _plain(status.tally())}


def _plain(value: Any) -> Any:  # noqa: ANN401  # data of any shape
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    return [_plain(item) for item in value]
