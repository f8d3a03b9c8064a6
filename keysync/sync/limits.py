"""Limits that a plan must keep before the first write, and the checksum that accepts a plan beyond them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from keysync.config.operation import Limits
from keysync.names import fold
from keysync.sync.model import REMOVALS, WRITES, Change, ChangeKind, Plan

# 128 bits: another plan with the same checksum cannot be found.
_CHECKSUM_DIGITS: Final = 32
_MIN_FOR_PERCENT: Final = 10

Counts: TypeAlias = Counter[tuple[str, ChangeKind | Literal["managed"]]]
"""By vault: the managed secrets, and the changes of each kind that a run may make."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why a plan may not be written: `finding` has the numbers.

    If it is not `late`, nothing was written, and the run stops. If it is, an earlier part of the run was written, and only the
    accounts that responded late are refused: the next run checks them again.
    """

    finding: str
    late: bool = False
    wrong_checksum: bool = False

    @property
    def outcome(self) -> Literal["refused", "skipped"]:
        """The outcome of each write of the plan."""
        return "refused" if self.late else "skipped"

    @property
    def reason(self) -> str:
        """The reason of each write of the plan. If it is late, the command that writes it anyway follows."""
        late = "not written, since this account responded late and would exceed the limit. To write it anyway"
        return f"{self.finding}: {late}" if self.late else "a safety limit stopped the run: not written"


def check(plan: Plan, limits: Mapping[str, Limits], written: Counts) -> Blocked | None:
    """None if `plan`, together with the changes that this run has `written`, is within the `limits` (by vault)."""
    finding = "; ".join(breaches(written + count(plan), limits))
    return Blocked(finding, late=any(kind in WRITES for _, kind in written)) if finding else None


def check_accepted(plan: Plan, accepted: str) -> Blocked | None:
    """None if `accepted` (`--accept`) is the checksum of `plan`, which may then exceed the limits."""
    actual = checksum(plan.changes)
    if accepted == actual:
        return None
    finding = f" does not match the current plan, {actual}: the plan has changed since, or the checksum belongs to other options"
    if not plan.writes:
        finding = ": the plan has no changes, so there is nothing to accept"
    return Blocked(f"--accept {accepted}{finding}", wrong_checksum=True)


def count(plan: Plan) -> Counts:
    """What the limits count. Changes that will not be written (read-only, `needs_accept`) do not count."""
    counts: Counts = Counter((change.ref.vault, "managed") for change in plan.changes if change.managed)
    counts.update(
        (change.ref.vault, change.kind) for change in plan.writes if not (change.read_only or change.needs_accept)
    )
    return counts


def breaches(counts: Counts, limits: Mapping[str, Limits]) -> list[str]:
    """The limits that `counts` exceed, with the numbers."""
    found: list[str] = []
    for vault, limit in sorted(limits.items()):
        managed, updates = counts[vault, "managed"], counts[vault, "update"]
        creates = counts[vault, "create"] + counts[vault, "recover"]
        removals = sum(counts[vault, kind] for kind in REMOVALS)
        share = f"of the {managed} secrets managed there"
        if creates > limit.creates:
            text = f"{creates} secrets would be created or recovered, limits.creates is {limit.creates}"
            found.append(f"vault {vault}: {text}")
        if managed >= _MIN_FOR_PERCENT and 100 * updates > limit.update_percent * managed:
            text = f"{updates} {share} ({100 * updates / managed:.0f}%) would be updated"
            found.append(f"vault {vault}: {text}, limits.update_percent is {limit.update_percent}")
        if removals > max_removals(managed, limit.removal_percent):
            text = f"{removals} {share} would be disabled or deleted"
            found.append(f"vault {vault}: {text}, limits.removal_percent is {limit.removal_percent}")
    return found


def max_removals(managed: int, percent: int) -> int:
    """How many of `managed` secrets one run may remove: at least one, for small vaults; none at 0 percent."""
    return max(1, managed * percent // 100) if percent else 0


def checksum(changes: Iterable[Change]) -> str:
    """Names exactly these changes, in order: references, kinds, fields and observed versions. It says nothing about values."""
    digest = hashlib.sha256()
    for change in changes:
        if change.kind in WRITES:
            ref, fields = change.ref, ",".join(sorted(change.fields))
            names = fold(ref.account), ref.key, ref.vault, fold(ref.secret)
            digest.update("\0".join((*names, change.kind, change.before or "", fields, change.proof)).encode() + b"\n")
    return digest.hexdigest()[:_CHECKSUM_DIGITS]
