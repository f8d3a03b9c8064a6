"""The data of a run. Nothing here contains the value of a secret, so all of it may be printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Literal, TypeAlias, TypeVar

from keysync.failures import FailureRecord
from keysync.secret.fingerprint import Fingerprint
from keysync.sources.interface import KeyName
from keysync.targets.interface import History, Metadata, Observation, StoredSecret

Write: TypeAlias = Literal["create", "update", "adopt", "recover", "disable", "delete"]
ChangeKind: TypeAlias = Literal[Write, "unchanged", "skipped", "refused", "failed"]
Outcome: TypeAlias = Literal[ChangeKind, "created", "updated", "adopted", "recovered", "disabled", "deleted", "unknown"]
"""The contract's outcomes. In a plan, a dry run or with read_only, a write has the outcome of its kind (create)."""
DONE: Mapping[ChangeKind, Outcome] = {
    "create": "created",
    "update": "updated",
    "adopt": "adopted",
    "recover": "recovered",
    "disable": "disabled",
    "delete": "deleted",
}
RunResult: TypeAlias = Literal["success", "failed", "stopped", "interrupted"]
WRITES: frozenset[ChangeKind] = frozenset(DONE)
REMOVALS: frozenset[ChangeKind] = frozenset({"disable", "delete"})
BAD: frozenset[Outcome] = frozenset({"refused", "failed", "unknown"})
Field: TypeAlias = Literal["value", "tags", "content_type", "expires", "enabled"]
Verdict: TypeAlias = Literal[
    "in_sync", "stale", "swapped", "duplicated", "unmanaged", "both_changed",
    "missing", "disabled", "soft_deleted", "orphaned", "unknown",
]  # fmt: skip
"""The state of a secret, compared with *all* current keys of its account.

`in_sync`: has its own key. `stale`: managed, and has no key of the account. `swapped`: has another key. `duplicated`: has another
key, and so does the secret of that key. `unmanaged`: not managed, and does not have its key. `both_changed`: managed, and no
secret of the account has any of its keys, so all keys were regenerated since the last run. `orphaned`: managed, but not mapped
by the configuration any more. `unknown`: a side did not respond.
"""
Adoption: TypeAlias = Literal["never", "untagged", "replace"]
"""What may be adopted: nothing; an untagged secret that already has the key; or any secret that no certificate owns."""


@dataclass(frozen=True, slots=True, order=True)
class ItemRef:
    """One key of one account in one vault. `account` is the ARM id, `vault` the name in the configuration."""

    account: str
    key: KeyName
    vault: str
    secret: str


@dataclass(frozen=True, slots=True)
class ItemPolicy:
    """What the configuration says of items. Items with the same settings share one object.

    `tags`: the user's own. `content_type`, `expires_after`: what the secret should have; None means any.
    `new_content_type`: for a new secret if any is allowed.
    `enable`, `recover`: whether to enable a disabled, or recover a soft-deleted, managed secret.
    `changes_per_day`: the maximum number of changes in 24 hours; None for no limit.
    `vault_url`, `options` (-c, --account, --shard): for suggested commands.
    """

    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    content_type: str | None = None
    new_content_type: str | None = None
    expires_after: timedelta | None = None
    owner: str | None = None
    adopt: Adoption = "never"
    enable: bool = False
    recover: bool = False
    read_only: bool = False
    changes_per_day: int | None = None
    vault_url: str = ""
    options: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """A reference with its policy."""

    ref: ItemRef
    policy: ItemPolicy = field(default_factory=ItemPolicy)


@dataclass(frozen=True, slots=True)
class Observed:
    """An item of which both sides responded: `keys` are the account's keys, `current` is the vault's reply.

    `at` is the monotonic time in seconds before the vault was read. `history` is there only if the item may need a new version.
    """

    item: Item
    keys: Mapping[KeyName, Fingerprint]
    current: Observation
    at: float = 0.0
    history: History | None = None

    @property
    def desired(self) -> Fingerprint:
        """The item's own key."""
        return self.keys[self.item.ref.key]

    @property
    def has_key(self) -> bool:
        """Whether the vault holds the item's own key."""
        return isinstance(self.current, StoredSecret) and self.current.fingerprint == self.desired

    @property
    def stored_key(self) -> KeyName | None:
        """The name of the account's key that the vault holds; None if it holds none of them."""
        if not isinstance(self.current, StoredSecret):
            return None
        return next((name for name, key in self.keys.items() if key == self.current.fingerprint), None)


@dataclass(frozen=True, slots=True)
class Change:
    """What one item needs.

    `before`: the observed version, made at `since` (UTC). `metadata`: what a write sets beside the value. `fields`: what a write
    changes; without ``value`` it makes no new version. `managed`: keysync manages the stored secret; the percent limits count
    these. `unmanaged`: there is a secret that keysync does not manage. `needs_accept`: why the change needs `--accept`, whatever
    the limits. `owner`: the owner tag that an orphan must still have when it is removed. `proof`: why it is an orphan: its
    account is gone, or only the mapping.
    """

    ref: ItemRef
    kind: ChangeKind
    verdict: Verdict = "unknown"
    reason: str | None = None
    before: str | None = None
    metadata: Metadata | None = None
    fields: frozenset[Field] = frozenset()
    error: FailureRecord | None = None
    read_only: bool = False
    managed: bool = False
    unmanaged: bool = False
    needs_accept: str | None = None
    owner: str | None = None
    since: datetime | None = None
    proof: str = ""

    def unwritten(self) -> Result:
        """The result while the change is not made: what it would do, or why there is nothing to do."""
        version = self.before if self.kind == "unchanged" else None
        outcome, reason = self.kind, self.reason
        if self.needs_accept and self.kind not in REMOVALS:
            outcome, reason = "refused", self.needs_accept
        elif self.read_only and self.kind in WRITES:
            reason = "; ".join(filter(None, (reason, "read_only is set here: not written")))
        return Result(self.ref, outcome, version, reason, self.error, self.verdict, self.since)


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes, sorted by reference."""

    changes: tuple[Change, ...]

    @property
    def writes(self) -> tuple[Change, ...]:
        """The changes that would write to a vault."""
        return tuple(change for change in self.changes if change.kind in WRITES)


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one item. `since`: when the observed version was made, UTC; None if this run made it."""

    ref: ItemRef
    outcome: Outcome
    version: str | None = None
    reason: str | None = None
    error: FailureRecord | None = None
    verdict: Verdict = "unknown"
    since: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """An item of the JSON report: the contract's fields, and `verdict`."""
        fields = {name: getattr(self, name) for name in ("outcome", "verdict", "version", "reason")}
        return {**asdict(self.ref), **fields, "error": self.error.to_dict() if self.error else None}


R = TypeVar("R", Change, Result)


def in_order(items: Iterable[R]) -> tuple[R, ...]:
    """`items` sorted by reference."""
    return tuple(sorted(items, key=attrgetter("ref.account", "ref.key", "ref.vault", "ref.secret")))


@dataclass(frozen=True, slots=True)
class Preflight:
    """Results and warnings about accounts that a run does not cover, known before it starts.

    `results`: items that were refused already. `warnings`: about no single item. `incomplete`: accounts are missing that the
    run should have covered.
    """

    results: tuple[Result, ...] = ()
    warnings: tuple[str, ...] = ()
    incomplete: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """One run. `duration_seconds` is wall time.

    `checksum`: names the plan, or only its unwritten changes if there are any: the next `--accept` takes it.
    `stopped`: the message, with the numbers, if a safety limit stopped the run. `warnings`: about no single item, such as a vault
    whose orphans could not be searched. `busy`: the number of accounts omitted because an earlier run still waited for them.
    `incomplete`: accounts are missing that the run should have covered. `orphans_searched`: the search for orphans succeeded in
    every vault.
    """

    run_id: str
    dry_run: bool
    checksum: str
    started: datetime
    duration_seconds: float
    accounts: int
    results: tuple[Result, ...]
    stopped: str | None = None
    interrupted: bool = False
    warnings: tuple[str, ...] = ()
    busy: int = 0
    incomplete: bool = False
    orphans_searched: bool = False

    @property
    def failed(self) -> bool:
        """Whether anything failed, was refused, is unknown, or is missing."""
        return self.incomplete or any(result.outcome in BAD for result in self.results)

    @property
    def result(self) -> RunResult:
        """The result of the whole run."""
        if self.stopped:
            return "stopped"
        if self.interrupted:
            return "interrupted"
        return "failed" if self.failed else "success"

    @property
    def has_changes(self) -> bool:
        """Whether a plan would write, or a run has written."""
        return any(result.outcome in {*DONE.keys(), *DONE.values()} for result in self.results)

    def summary(self) -> dict[str, int]:
        """The number of accounts, and of items by outcome: the usual outcomes always, so that a script need not check."""
        counts = Counter[str](result.outcome for result in self.results)
        usual = dict.fromkeys(("created", "updated", "unchanged", "refused", "failed"), 0)
        return {"accounts": self.accounts, **usual, **dict(sorted(counts.items()))}

    def to_dict(self) -> dict[str, Any]:
        """The JSON report, in the contract's shape; `started` in UTC."""
        return {
            "run_id": self.run_id,
            "dry_run": self.dry_run,
            "checksum": self.checksum,
            "started": self.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "duration_seconds": self.duration_seconds,
            "summary": self.summary(),
            "items": [result.to_dict() for result in self.results],
            "stopped": self.stopped,
            "interrupted": self.interrupted,
            "warnings": list(self.warnings),
        }
