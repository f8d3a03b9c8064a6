"""What flows through a run. Nothing here holds a value of a secret, so all of it may be printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar

from keysync.failures import FailureRecord
from keysync.secret.fingerprint import Fingerprint
from keysync.sources.interface import KeyName
from keysync.targets.interface import History, Metadata, Observation

ChangeKind: TypeAlias = Literal[
    "create", "update", "adopt", "recover", "disable", "delete", "unchanged", "skipped", "refused", "failed"
]
WRITES: frozenset[ChangeKind] = frozenset({"create", "update", "adopt", "recover", "disable", "delete"})
REMOVALS: frozenset[ChangeKind] = frozenset({"disable", "delete"})
Field: TypeAlias = Literal["value", "tags", "content_type", "expires", "enabled"]
Verdict: TypeAlias = Literal[
    "in_sync",
    "stale",
    "swapped",
    "duplicated",
    "unmanaged",
    "both_changed",
    "missing",
    "disabled",
    "soft_deleted",
    "orphaned",
    "unknown",
]
"""How a stored secret stands to *both* live keys of its account.

`in_sync`: it holds its own key. `stale`: ours, and it holds neither. `swapped`: it holds the other key. `duplicated`: so does
the secret of that other key. `unmanaged`: not ours, and it does not hold its key. `both_changed`: ours, and neither of the
two secrets holds either key, so both keys were regenerated since the last run. `orphaned`: ours, and nothing in the
configuration serves it any more. `unknown`: a side did not answer.
"""
Outcome: TypeAlias = Literal[
    "created",
    "updated",
    "adopted",
    "recovered",
    "disabled",
    "deleted",
    "unchanged",
    "skipped",
    "refused",
    "failed",
    "unknown",
    "create",
    "update",
    "adopt",
    "recover",
    "disable",
    "delete",
]
DONE: Mapping[ChangeKind, Outcome] = {
    "create": "created",
    "update": "updated",
    "adopt": "adopted",
    "recover": "recovered",
    "disable": "disabled",
    "delete": "deleted",
}
BAD: frozenset[Outcome] = frozenset({"refused", "failed", "unknown"})


@dataclass(frozen=True, slots=True, order=True)
class ItemRef:
    """One key of one account in one vault: `account` is its ARM id, `vault` the configuration's name for the vault."""

    account: str
    key: KeyName
    vault: str
    secret: str


Adoption: TypeAlias = Literal["never", "unmarked", "replace"]
"""What may be taken over: nothing; what nobody has marked and already holds the key; or anything a certificate does not own."""


@dataclass(frozen=True, slots=True)
class ItemPolicy:
    """What the configuration says of items: one object for all of which it says the same.

    `tags` are the user's own; `content_type` and `expires_after` what the secret is to have, None where they are nobody's
    concern; `enable` and `recover` say what is done with a secret of ours that is disabled or soft-deleted;
    `changes_per_day` is how often it may change in 24 hours, None for any number of times; `vault_url`, and the `options`
    of this run such as ``-c FILE``, are for the commands that a person is told.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
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
    """A reference with the terms on which it is served."""

    ref: ItemRef
    policy: ItemPolicy = field(default_factory=ItemPolicy)


@dataclass(frozen=True, slots=True)
class Observed:
    """Both sides of an item answered.

    `other` is the account's other live key; `at` the monotonic time in seconds at which the vault was looked at;
    `history` is there where a new version may be called for.
    """

    item: Item
    wanted: Fingerprint
    stored: Observation
    other: Fingerprint | None = None
    at: float = 0.0
    history: History | None = None


@dataclass(frozen=True, slots=True)
class KeyRefused:
    """The account gave no key that may be written."""

    item: Item
    reason: str


@dataclass(frozen=True, slots=True)
class Unobserved:
    """A side of the item failed to answer."""

    item: Item
    error: FailureRecord


ItemObservation: TypeAlias = Observed | KeyRefused | Unobserved


@dataclass(frozen=True, slots=True)
class Change:
    """What one item needs.

    `before` is the version that was observed, `metadata` what a write sets beside the value, `fields` what would differ
    afterwards; without ``value`` among them no version is made. `managed` says that the stored secret is ours already: what
    limits are a share of. `unmanaged` says that there is one that is not. `held` is why it needs `--accept`, whatever the limits
    are. `owner` is whose mark the secret has to bear still when it is removed.
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
    held: str | None = None
    owner: str | None = None
    since: datetime | None = None
    """When the observed version was made, UTC."""
    proof: str = ""
    """What makes an orphan one: whether its account is gone, or only its mapping."""


class _HasRef(Protocol):
    @property
    def ref(self) -> ItemRef: ...


R = TypeVar("R", bound=_HasRef)
_PLACE: Final = tuple(attrgetter(f"ref.{part}") for part in ("secret", "vault", "key", "account"))


def in_order(those: Iterable[R]) -> tuple[R, ...]:
    """In the order of their references."""
    # A sort leaves in their order those that are alike by its key, and one by references would make two tuples for each comparison.
    found = list(those)
    for part in _PLACE:
        found.sort(key=part)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes in the order of their references.

    In a run, `settled` are the results of items of ours that need nothing, in place of their changes: in a large fleet nearly all.
    """

    changes: tuple[Change, ...]
    in_sync: tuple[Result, ...] = ()

    @property
    def writes(self) -> tuple[Change, ...]:
        """Those that would touch a vault."""
        return tuple(change for change in self.changes if change.kind in WRITES)

    @property
    def held(self) -> tuple[Change, ...]:
        """Those that nobody makes before they were accepted."""
        return tuple(change for change in self.writes if change.held)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one item."""

    ref: ItemRef
    outcome: Outcome
    version: str | None = None
    reason: str | None = None
    error: FailureRecord | None = None
    verdict: Verdict = "unknown"
    since: datetime | None = None
    """When the version that was found was made, UTC; None for one that this run made."""

    def to_dict(self) -> dict[str, Any]:
        """The contract's item, and the verdict."""
        return {
            "account": self.ref.account,
            "key": self.ref.key,
            "vault": self.ref.vault,
            "secret": self.ref.secret,
            "outcome": self.outcome,
            "verdict": self.verdict,
            "version": self.version,
            "reason": self.reason,
            "error": self.error.to_dict() if self.error else None,
        }


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was known before a run of accounts that are no part of it.

    `results` are items that were refused already, `warnings` are about no item, and `incomplete` says that accounts are
    missing that should have been covered.
    """

    results: tuple[Result, ...] = ()
    warnings: tuple[str, ...] = ()
    incomplete: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """One run as it is told. `stopped` holds the numbers of a safety stop; `duration_seconds` is wall time.

    `checksum` names the plan or, where something was left undone, just that: what the next `--accept` would take.
    `warnings` are about no item: a vault that could not be searched for orphans, for one. `busy` accounts were left out,
    since an earlier run still waited for them. `incomplete` says that accounts are missing that should have been covered.
    `orphans_searched` says that orphans were searched for, in every vault and with success.
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
        """Whether anything failed, was refused, has an unknown end, or could not even be looked at."""
        return self.incomplete or any(result.outcome in BAD for result in self.results)

    @property
    def has_changes(self) -> bool:
        """Whether a plan would write, or a run wrote."""
        changed = WRITES | set(DONE.values())
        return any(result.outcome in changed for result in self.results)
