"""What flows through a pass. Nothing here holds a value of a secret, so all of it may be printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

from keysync.azure.errors import FailureRecord
from keysync.secret.fingerprint import Fingerprint
from keysync.sources.interface import KeyName
from keysync.targets.interface import Metadata, Observation

ChangeKind: TypeAlias = Literal["create", "update", "adopt", "unchanged", "skipped", "refused", "failed"]
WRITES: frozenset[ChangeKind] = frozenset({"create", "update", "adopt"})
Outcome: TypeAlias = Literal[
    "created",
    "updated",
    "adopted",
    "unchanged",
    "skipped",
    "refused",
    "failed",
    "unknown",
    "create",
    "update",
    "adopt",
]
DONE: Mapping[ChangeKind, Outcome] = {"create": "created", "update": "updated", "adopt": "adopted"}
BAD: frozenset[Outcome] = frozenset({"refused", "failed", "unknown"})


@dataclass(frozen=True, slots=True, order=True)
class ItemRef:
    """One key of one account in one vault: `account` is its ARM id, `vault` the configuration's name for the vault."""

    account: str
    key: KeyName
    vault: str
    secret: str


@dataclass(frozen=True, slots=True)
class Item:
    """A reference with what the configuration says of it. `tags` are the user's own, `content_type` what it is to have."""

    ref: ItemRef
    tags: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    owner: str | None = None
    adopt: bool = False
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """Both sides of an item answered."""

    item: Item
    wanted: Fingerprint
    stored: Observation


@dataclass(frozen=True, slots=True)
class KeyRefused:
    """The account gave no key that may be written."""

    item: Item
    reason: str


@dataclass(frozen=True, slots=True)
class Unseen:
    """A side of the item failed to answer."""

    item: Item
    error: FailureRecord


Observed: TypeAlias = Seen | KeyRefused | Unseen


@dataclass(frozen=True, slots=True)
class Change:
    """What one item needs. `before` is the version that was observed; `metadata` what a write sets beside the value."""

    ref: ItemRef
    kind: ChangeKind
    reason: str | None = None
    before: str | None = None
    metadata: Metadata | None = None
    error: FailureRecord | None = None
    read_only: bool = False
    managed: bool = False
    """Whether the stored secret is ours already: what limits are a share of."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes in the order of their references."""

    changes: tuple[Change, ...]

    @property
    def writes(self) -> tuple[Change, ...]:
        """Those that would touch a vault."""
        return tuple(change for change in self.changes if change.kind in WRITES)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one item."""

    ref: ItemRef
    outcome: Outcome
    version: str | None = None
    reason: str | None = None
    error: FailureRecord | None = None

    def to_dict(self) -> dict[str, Any]:
        """The contract's item."""
        return {
            "account": self.ref.account,
            "key": self.ref.key,
            "vault": self.ref.vault,
            "secret": self.ref.secret,
            "outcome": self.outcome,
            "version": self.version,
            "reason": self.reason,
            "error": self.error.to_dict() if self.error else None,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """One pass as it is told. `stopped` holds the numbers of a safety stop; `duration_seconds` is wall time."""

    run_id: str
    dry_run: bool
    checksum: str
    started: datetime
    duration_seconds: float
    accounts: int
    results: tuple[Result, ...]
    stopped: str | None = None
    interrupted: bool = False

    @property
    def failed(self) -> bool:
        """Whether anything failed, was refused, or has an unknown end."""
        return any(result.outcome in BAD for result in self.results)

    @property
    def has_changes(self) -> bool:
        """Whether a plan would write, or a pass wrote."""
        changed = WRITES | set(DONE.values())
        return any(result.outcome in changed for result in self.results)
