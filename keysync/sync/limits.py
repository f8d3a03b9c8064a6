"""Limits that a plan must keep before the first write, and the checksum that accepts a plan beyond them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from keysync.errors import Instruction
from keysync.names import fold
from keysync.sync.messages import command
from keysync.sync.model import BAD, REMOVALS, Change, ChangeKind, ItemRef, Outcome, Plan, Result, in_order

# 128 bits: another plan with the same checksum cannot be found.
_CHECKSUM_DIGITS: Final = 32
_MIN_FOR_PERCENT: Final = 10


@dataclass(frozen=True, slots=True)
class EffectiveLimits:
    """The limits that apply to one vault. The percentages are of the secrets that keysync manages there."""

    creates: int
    update_percent: int
    removal_percent: int


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit that a plan exceeds in one vault, with the numbers."""

    vault: str
    text: str

    def __str__(self) -> str:
        return f"vault {self.vault}: {self.text}"


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why a plan may not be written: the outcome and reason of its writes."""

    outcome: Outcome
    reason: str


class SafetyCheck:
    """Checks the batches of one run, all together, against the limits; or the one batch against the accepted checksum.

    A first batch beyond the limits stops the run, and nothing is written. A later batch (of slow accounts) cannot stop what is
    already written: it is refused, and the next run checks it again.
    """

    def __init__(
        self, limits: Mapping[str, EffectiveLimits], *, accept: str | None, dry_run: bool, options: str = ""
    ) -> None:
        self.dry_run = dry_run
        self._limits = limits
        self._accept = accept
        self._options = options
        self._not_done: set[ItemRef] = set()
        self._allowed = Plan(())
        self._blocked = Plan(())
        self._breaches: tuple[Breach, ...] = ()
        self._wrong_checksum: str | None = None
        self._late_reason: str | None = None
        self._needs_accept: dict[ItemRef, str] = {}

    def check(self, plan: Plan) -> Blocked | None:
        """None if `plan`, together with the batches before it, may be written. Once a batch is blocked, all later ones are."""
        if self._accept is not None:
            self._check_checksum(plan, self._accept)
        elif not self._breaches:
            self._breaches = breaches(_joined(self._allowed, plan), self._limits)
            if self._breaches and any(_is_counted(change) for change in self._allowed.writes):
                self._late_reason = (
                    f"{_text(self._breaches)}: not written, since this account responded late and would exceed the limit. "
                    "To write it anyway"
                )
        blocked = self._result()
        if blocked is not None:
            self._blocked = _joined(self._blocked, plan)
            return blocked
        self._allowed = _joined(self._allowed, plan)
        if self._accept is None:
            self._needs_accept |= {change.ref: change.needs_accept for change in plan.writes if change.needs_accept}
        return None

    def _check_checksum(self, plan: Plan, accepted: str) -> None:
        actual = checksum(plan)
        if accepted != actual and plan.writes:
            self._wrong_checksum = other_checksum(accepted, actual, self._command(actual))
        elif accepted != actual:
            self._wrong_checksum = f"--accept {accepted}: the plan has no changes, so there is nothing to accept"

    def _result(self) -> Blocked | None:
        if self.dry_run:
            return None
        if self._late_reason is not None:
            return Blocked("refused", self._late_reason)
        if self._breaches or self._wrong_checksum:
            return Blocked("skipped", "a safety limit stopped the run: not written")
        return None

    def settle(self, results: Iterable[Result]) -> None:
        """Records the results of the writes: the next run will plan what failed or was skipped again."""
        self._not_done = {result.ref for result in results if result.outcome in BAD or result.outcome == "skipped"}

    @property
    def checksum(self) -> str:
        """The checksum of the plan or, if some of it was not written, of just that: the next run will plan it again."""
        if self.dry_run:
            return checksum(self._allowed)
        left = self._left()
        return checksum(left if any(not change.read_only for change in left.writes) else self._allowed)

    @property
    def stopped(self) -> str | None:
        """The message if a limit stopped the run."""
        if self._breaches and self._late_reason is None and not self.dry_run:
            return stop_message(self._breaches, self._command(self.checksum))
        return self._wrong_checksum

    @property
    def warnings(self) -> tuple[str, ...]:
        """In a dry run: the limits that the plan exceeds."""
        if self._breaches and self.dry_run:
            warning = f"{_text(self._breaches)}: a sync would stop here and write nothing. If it is intended"
            return (Instruction(f"{warning}: {self._command(self.checksum)}"),)
        return ()

    def waits(self, result: Result) -> bool:
        """Whether the reason of `result` needs a command that is known only after the last batch."""
        return result.ref in self._needs_accept or (
            self._late_reason is not None and result.reason == self._late_reason
        )

    def explained(self, result: Result) -> Result:
        """`result`; if its change needs `--accept`, with the command that accepts it."""
        if not self.waits(result):
            return result
        needs_accept = self._needs_accept.get(result.ref)
        changes = self._allowed.writes if self.dry_run else self._left().writes
        waiting = Counter[ChangeKind](change.kind for change in changes if not change.read_only)
        reason = accept_message(needs_accept or self._late_reason or "", waiting, self._command(self.checksum))
        if needs_accept is None or self.dry_run or result.outcome == "refused":
            return replace(result, reason=reason)
        return replace(result, outcome="skipped", reason=reason)

    def _left(self) -> Plan:
        """The changes that this run does not write."""
        return _joined(self._blocked, Plan(tuple(change for change in self._allowed.writes if self._is_left(change))))

    def _is_left(self, change: Change) -> bool:
        needs_accept = change.needs_accept is not None and self._accept is None
        return change.read_only or needs_accept or change.ref in self._not_done

    def _command(self, accepted: str) -> str:
        return command("sync", f"{self._options} --accept {accepted}".strip())


def breaches(plan: Plan, limits: Mapping[str, EffectiveLimits]) -> tuple[Breach, ...]:
    """The limits that `plan` exceeds, by vault. Changes that will not be written (read-only, `needs_accept`) do not count."""
    by_vault: dict[str, list[Change]] = {vault: [] for vault in limits}
    for change in plan.changes:
        by_vault.get(change.ref.vault, []).append(change)
    in_sync = Counter(result.ref.vault for result in plan.in_sync)
    return tuple(
        Breach(vault, text)
        for vault, limit in sorted(limits.items())
        for text in _exceeded(by_vault[vault], in_sync[vault], limit)
    )


def _exceeded(changes: list[Change], in_sync: int, limit: EffectiveLimits) -> list[str]:
    managed = in_sync + sum(change.managed for change in changes)
    kinds = Counter(change.kind for change in changes if _is_counted(change))
    creates, updates = kinds["create"] + kinds["recover"], kinds["update"]
    removals = sum(kinds[kind] for kind in REMOVALS)
    texts: list[str] = []
    if creates > limit.creates:
        texts.append(f"{creates} secrets would be created or recovered, limits.creates is {limit.creates}")
    if managed >= _MIN_FOR_PERCENT and 100 * updates > limit.update_percent * managed:
        texts.append(
            f"{updates} of the {managed} secrets managed there ({100 * updates / managed:.0f}%) would be updated, "
            f"limits.update_percent is {limit.update_percent}"
        )
    if removals > max_removals(managed, limit.removal_percent):
        texts.append(
            f"{removals} of the {managed} secrets managed there would be disabled or deleted, "
            f"limits.removal_percent is {limit.removal_percent}"
        )
    return texts


def max_removals(managed: int, percent: int) -> int:
    """How many of `managed` secrets one run may remove: at least one, for small vaults; none at 0 percent."""
    return max(1, managed * percent // 100) if percent else 0


def checksum(plan: Plan) -> str:
    """Names exactly this plan: references, kinds, fields and observed versions. It says nothing about values."""
    digest = hashlib.sha256()
    for change in plan.writes:
        ref = change.ref
        details = (change.kind, change.before or "", ",".join(sorted(change.fields)), change.proof)
        line = "\0".join((fold(ref.account), ref.key, ref.vault, fold(ref.secret), *details))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()[:_CHECKSUM_DIGITS]


def stop_message(exceeded: tuple[Breach, ...], accept: str) -> str:
    """The message of a stopped run. `accept` is the command that continues."""
    return f"{_text(exceeded)}. Nothing was written. Check the plan; if it is intended: {accept}"


def accept_message(reason: str, waiting: Mapping[ChangeKind, int], accept: str) -> str:
    """Why a change needs `--accept`, and the command. It accepts all `waiting` changes, this one included: kinds to numbers."""
    if sum(waiting.values()) <= 1:
        return f"{reason}: {accept}"
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(waiting.items()))
    return f"{reason} (accepts all waiting changes: {counts}): {accept}"


def other_checksum(accepted: str, actual: str, accept: str) -> str:
    """The message if the accepted checksum is not that of the plan."""
    return (
        f"--accept {accepted} does not match the current plan, {actual}: the plan has changed since, or the checksum belongs to "
        f"other options. Nothing was written. Check the plan; if it is intended: {accept}"
    )


def _text(exceeded: tuple[Breach, ...]) -> str:
    return "; ".join(str(breach) for breach in exceeded)


def _is_counted(change: Change) -> bool:
    return not change.read_only and not change.needs_accept


def _joined(first: Plan, second: Plan) -> Plan:
    if not first.changes and not first.in_sync:
        return second
    return Plan(in_order((*first.changes, *second.changes)), (*first.in_sync, *second.in_sync))
