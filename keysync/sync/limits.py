"""Limits that a plan must keep before the first write, and the checksum by which a person accepts a plan."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from keysync.errors import Instruction
from keysync.names import fold
from keysync.sync.messages import command
from keysync.sync.model import BAD, REMOVALS, Change, ChangeKind, ItemRef, Outcome, Plan, Result, in_order

# 128 bits: no other plan with the same checksum can be found.
_CHECKSUM_DIGITS: Final = 32
_FEWEST_FOR_A_SHARE: Final = 10


class LimitsLike(Protocol):
    """The limits of one vault."""

    @property
    def creates(self) -> int: ...
    @property
    def update_percent(self) -> int: ...
    @property
    def removal_percent(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Breach:
    """One limit of one vault, with the numbers."""

    vault: str
    text: str

    def __str__(self) -> str:
        return f"vault {self.vault}: {self.text}"


def breaches(plan: Plan, limits: Mapping[str, LimitsLike]) -> tuple[Breach, ...]:
    """Which limits `plan` breaks, by vault. What is not going to be written (read-only, held) counts nothing."""
    by_vault: dict[str, list[Change]] = {vault: [] for vault in limits}
    for change in plan.changes:
        by_vault.get(change.ref.vault, []).append(change)
    in_sync = Counter(result.ref.vault for result in plan.in_sync)
    return tuple(
        Breach(vault, text)
        for vault, limit in sorted(limits.items())
        for text in _broken(by_vault[vault], in_sync[vault], limit)
    )


def _broken(changes: list[Change], in_sync: int, limit: LimitsLike) -> list[str]:
    managed = in_sync + sum(change.managed for change in changes)
    kinds = Counter(change.kind for change in changes if not change.read_only and not change.held)
    creates, updates = kinds["create"] + kinds["recover"], kinds["update"]
    removals = sum(kinds[kind] for kind in REMOVALS)
    found: list[str] = []
    if creates > limit.creates:
        found.append(f"{creates} secrets would be created or recovered, limits.creates is {limit.creates}")
    if managed >= _FEWEST_FOR_A_SHARE and 100 * updates > limit.update_percent * managed:
        found.append(
            f"{updates} of the {managed} secrets managed there ({100 * updates / managed:.0f}%) would be updated, "
            f"limits.update_percent is {limit.update_percent}"
        )
    if removals > most_removals(managed, limit.removal_percent):
        found.append(
            f"{removals} of the {managed} secrets managed there would be disabled or deleted, "
            f"limits.removal_percent is {limit.removal_percent}"
        )
    return found


def most_removals(managed: int, percent: int) -> int:
    """How many of `managed` secrets one run may remove: at least one, or a small vault could lose none; none at 0 percent."""
    return max(1, managed * percent // 100) if percent else 0


def checksum(plan: Plan) -> str:
    """Names exactly this plan: its references, kinds of change, fields and observed versions; never anything of a value."""
    digest = hashlib.sha256()
    for change in plan.writes:
        ref = change.ref
        what = (change.kind, change.before or "", ",".join(sorted(change.fields)), change.proof)
        line = "\0".join((fold(ref.account), ref.key, ref.vault, fold(ref.secret), *what))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()[:_CHECKSUM_DIGITS]


def stop_message(found: tuple[Breach, ...], accept: str) -> str:
    """The error of a stopped pass: the numbers, and the command to go on."""
    return f"{_told(found)}. Nothing was written. Look at the plan; if it is meant: {accept}"


def plan_warning(found: tuple[Breach, ...], accept: str) -> Instruction:
    """What a plan tells of the limits that it is beyond."""
    return Instruction(f"{_told(found)}: a sync would stop here and write nothing. If it is meant: {accept}")


def late_message(found: tuple[Breach, ...]) -> str:
    """Why accounts that were late are not written, where those that answered in time have been."""
    return f"{_told(found)}: not written, since this account answered late and would go beyond the limit. To write it all the same"


def held_message(held: str, waiting: Mapping[ChangeKind, int], accept: str) -> str:
    """Why a change needs `--accept`, and the command that makes all `waiting` changes, this one included: kinds to numbers."""
    if sum(waiting.values()) <= 1:
        return f"{held}: {accept}"
    made = ", ".join(f"{count} {kind}" for kind, count in sorted(waiting.items()))
    return f"{held} (it makes all that waits: {made}): {accept}"


def refusal_of(accepted: str, actual: str, accept: str) -> str:
    """The error where the plan is not the one that was accepted."""
    return (
        f"--accept {accepted} is not for the plan as it is now, which is {actual}: the world has changed, the checksum was shown "
        f"for other options, or it is mistyped. Nothing was written. Look at the plan; if it is meant: {accept}"
    )


def nothing_to_accept(accepted: str) -> str:
    """The error where the plan has nothing in it that could be accepted."""
    return f"--accept {accepted}: nothing is to be changed now, so there is nothing to accept"


def _told(found: tuple[Breach, ...]) -> str:
    return "; ".join(str(breach) for breach in found)


@dataclass(frozen=True, slots=True)
class Blocked:
    """How a round that may not be written is told."""

    outcome: Outcome
    reason: str


class SafetyCheck:
    """Judges rounds by the limits over all of them together, or the one round by the checksum that was accepted.

    A first round beyond the limits stops the run: nothing is written at all. A later one, of accounts that were slow to
    answer, can no longer: what others needed is written by then, so it is refused and the next run judges it again.
    """

    def __init__(
        self, limits: Mapping[str, LimitsLike], *, accept: str | None, dry_run: bool, options: str = ""
    ) -> None:
        self._limits = limits
        self._accept = accept
        self.dry_run = dry_run
        self._options = options
        self._not_done: set[ItemRef] = set()
        self._let_through = Plan(())
        self._left_undone = Plan(())
        self._breaches: tuple[Breach, ...] = ()
        self._refusal: str | None = None
        self._late: str | None = None
        self._held: dict[ItemRef, str] = {}

    def check(self, plan: Plan) -> Blocked | None:
        """None where `plan`, on top of the rounds before it, may be written; once one may not, no later one may."""
        self._look_at(plan)
        blocked = self._blocked()
        if blocked is None:
            self._let_through = _joined(self._let_through, plan)
            if self._accept is None:
                self._held |= {change.ref: change.held for change in plan.writes if change.held}
        else:
            self._left_undone = _joined(self._left_undone, plan)
        return blocked

    def settle(self, results: Iterable[Result]) -> None:
        """Learns what came of the writes that were let through: what failed is what the next run finds again."""
        self._not_done = {result.ref for result in results if result.outcome in BAD or result.outcome == "skipped"}

    def _look_at(self, plan: Plan) -> None:
        if self._accept is not None:
            if self._accept != checksum(plan) and not plan.writes:
                self._refusal = nothing_to_accept(self._accept)
            elif self._accept != checksum(plan):
                self._refusal = refusal_of(self._accept, checksum(plan), self._command(checksum(plan)))
        elif not self._breaches:
            self._breaches = breaches(_joined(self._let_through, plan), self._limits)
            if self._breaches and any(_is_written(change) for change in self._let_through.writes):
                self._late = late_message(self._breaches)

    def _blocked(self) -> Blocked | None:
        if self.dry_run:
            return None
        if self._late is not None:
            return Blocked("refused", self._late)
        if self._breaches or self._refusal:
            return Blocked("skipped", "a safety limit stopped the run: not written")
        return None

    @property
    def checksum(self) -> str:
        """Of the whole plan or, where something was left undone, of just that: it is what the next run would find to do."""
        if self.dry_run:
            return checksum(self._let_through)
        blocked = self._what_is_blocked()
        return checksum(blocked if any(not change.read_only for change in blocked.writes) else self._let_through)

    def _what_is_blocked(self) -> Plan:
        kept = [change for change in self._let_through.writes if self._is_left(change)]
        return _joined(self._left_undone, Plan(tuple(kept)))

    def _is_left(self, change: Change) -> bool:
        held = change.held is not None and self._accept is None
        return change.read_only or held or change.ref in self._not_done

    def _command(self, accepted: str) -> str:
        return command("sync", f"{self._options} --accept {accepted}".strip())

    @property
    def stopped(self) -> str | None:
        """The error of a stopped pass."""
        if self._breaches and self._late is None and not self.dry_run:
            return stop_message(self._breaches, self._command(self.checksum))
        return self._refusal

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a plan has to tell beside its items."""
        if self._breaches and self.dry_run:
            return (plan_warning(self._breaches, self._command(self.checksum)),)
        return ()

    def waits(self, result: Result) -> bool:
        """Whether the result tells a command that can be known only when all rounds are over."""
        return result.ref in self._held or (self._late is not None and result.reason == self._late)

    def explained(self, result: Result) -> Result:
        """The result, with the command that has a change made that was held back."""
        if not self.waits(result):
            return result
        held = self._held.get(result.ref)
        changes = self._let_through.writes if self.dry_run else self._what_is_blocked().writes
        waiting = Counter(change.kind for change in changes if not change.read_only)
        reason = held_message(held or self._late or "", waiting, self._command(self.checksum))
        if held is None or self.dry_run or result.outcome == "refused":
            return replace(result, reason=reason)
        return replace(result, outcome="skipped", reason=reason)


def _is_written(change: Change) -> bool:
    return not change.read_only and not change.held


def _joined(one: Plan, other: Plan) -> Plan:
    if not any((one.changes, one.in_sync)):
        return other
    return Plan(in_order((*one.changes, *other.changes)), (*one.in_sync, *other.in_sync))
