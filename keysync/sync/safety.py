"""Limits that a plan has to keep before anything is written, and the checksum by which a person accepts one that does not."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from keysync.sync.model import Plan

_FEWEST_FOR_A_SHARE: Final = 10


class LimitsLike(Protocol):
    """The limits of one vault."""

    @property
    def creates(self) -> int: ...
    @property
    def update_percent(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Breach:
    """One limit of one vault, with the numbers."""

    vault: str
    text: str

    def __str__(self) -> str:
        return f"vault {self.vault}: {self.text}"


def breaches(plan: Plan, limits: Mapping[str, LimitsLike]) -> tuple[Breach, ...]:
    """Which limits `plan` breaks, by vault. Read-only items count nothing: they are never written."""
    creates: Counter[str] = Counter()
    updates: Counter[str] = Counter()
    managed: Counter[str] = Counter()
    for change in plan.changes:
        managed[change.ref.vault] += change.managed
        if not change.read_only:
            creates[change.ref.vault] += change.kind == "create"
            updates[change.ref.vault] += change.kind == "update"
    found: list[Breach] = []
    for vault, limit in sorted(limits.items()):
        if creates[vault] > limit.creates:
            found.append(Breach(vault, f"{creates[vault]} secrets would be created, limits.creates is {limit.creates}"))
        share = 100 * updates[vault] / managed[vault] if managed[vault] else 0.0
        if managed[vault] >= _FEWEST_FOR_A_SHARE and share > limit.update_percent:
            found.append(
                Breach(
                    vault,
                    f"{updates[vault]} of the {managed[vault]} secrets managed there ({share:.0f}%) would be updated, "
                    f"limits.update_percent is {limit.update_percent}",
                )
            )
    return tuple(found)


def checksum(plan: Plan) -> str:
    """Names exactly this plan: its references, kinds of change and observed versions; never anything of a value."""
    digest = hashlib.sha256()
    for change in plan.writes:
        ref = change.ref
        line = "\0".join(
            (ref.account.lower(), ref.key, ref.vault, ref.secret.lower(), change.kind, change.before or "")
        )
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()[:16]


def stop_message(found: tuple[Breach, ...], plan_checksum: str, *, written: bool) -> str:
    """The error of a stopped pass: the numbers, whether accounts that answered sooner were `written`, and how to go on."""
    told = "; ".join(str(breach) for breach in found)
    nothing = "Nothing more was written" if written else "Nothing was written"
    return f"{told}. {nothing}. If this is meant: keysync sync --accept {plan_checksum}"


def refusal_of(accepted: str, actual: str) -> str:
    """The error where the plan is not the one that was accepted."""
    return (
        f"--accept {accepted} is for another plan: the world has changed, the plan is now {actual}. "
        "Nothing was written. Look at it (keysync plan) before you accept it"
    )
