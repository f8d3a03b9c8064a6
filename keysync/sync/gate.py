"""The gate between plan and apply: whether each round of a pass may be written, and what the next `--accept` would take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from keysync.sync.model import BAD, Change, ItemRef, Outcome, Plan, Result, in_order
from keysync.sync.refusals import command
from keysync.sync.safety import (
    Breach,
    LimitsLike,
    breaches,
    checksum,
    held_message,
    late_message,
    nothing_to_accept,
    plan_warning,
    refusal_of,
    stop_message,
)


@dataclass(frozen=True, slots=True)
class Undone:
    """How a round that may not be written is told."""

    outcome: Outcome
    reason: str


class Gate:
    """Judges rounds by the limits over all of them together, or the one round by the checksum that was accepted.

    A first round beyond the limits stops the pass: nothing is written at all. A later one, of accounts that were slow to
    answer, can no longer: what others needed is written by then, so it is refused and the next pass judges it again.
    """

    def __init__(
        self, limits: Mapping[str, LimitsLike], *, accept: str | None, dry_run: bool, options: str = ""
    ) -> None:
        self._limits = limits
        self._accept = accept
        self._dry_run = dry_run
        self._options = options
        self._not_done: set[ItemRef] = set()
        self._let_through = Plan(())
        self._left_undone = Plan(())
        self._breaches: tuple[Breach, ...] = ()
        self._refusal: str | None = None
        self._late: str | None = None
        self._held: dict[ItemRef, str] = {}

    def judge(self, plan: Plan) -> Undone | None:
        """None where `plan`, on top of the rounds before it, may be written; once one may not, no later one may."""
        self._look_at(plan)
        undone = self._undone()
        if undone is None:
            self._let_through = _joined(self._let_through, plan)
            if self._accept is None:
                self._held |= {change.ref: change.held for change in plan.writes if change.held}
        else:
            self._left_undone = _joined(self._left_undone, plan)
        return undone

    def settle(self, results: Iterable[Result]) -> None:
        """Learns what came of the writes that were let through: what failed is what the next pass finds again."""
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

    def _undone(self) -> Undone | None:
        if self._dry_run:
            return None
        if self._late is not None:
            return Undone("refused", self._late)
        if self._breaches or self._refusal:
            return Undone("skipped", "a safety limit stopped the pass: not written")
        return None

    @property
    def checksum(self) -> str:
        """Of the whole plan or, where something was left undone, of just that: it is what the next pass would find to do."""
        if self._dry_run:
            return checksum(self._let_through)
        undone = self._what_is_undone()
        return checksum(undone if any(not change.read_only for change in undone.writes) else self._let_through)

    def _what_is_undone(self) -> Plan:
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
        if self._breaches and self._late is None and not self._dry_run:
            return stop_message(self._breaches, self._command(self.checksum))
        return self._refusal

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a plan has to tell beside its items."""
        if self._breaches and self._dry_run:
            return (plan_warning(self._breaches, self._command(self.checksum)),)
        return ()

    def waits(self, result: Result) -> bool:
        """Whether the result tells a command that can be known only when all rounds are over."""
        return result.ref in self._held or (self._late is not None and result.reason == self._late)

    def told(self, result: Result) -> Result:
        """The result, with the command that has a change made that was held back."""
        if not self.waits(result):
            return result
        held = self._held.get(result.ref)
        changes = self._let_through.writes if self._dry_run else self._what_is_undone().writes
        waiting = Counter(change.kind for change in changes if not change.read_only)
        reason = held_message(held or self._late or "", waiting, self._command(self.checksum))
        if held is None or self._dry_run or result.outcome == "refused":
            return replace(result, reason=reason)
        return replace(result, outcome="skipped", reason=reason)


def _is_written(change: Change) -> bool:
    return not change.read_only and not change.held


def _joined(one: Plan, other: Plan) -> Plan:
    if not any((one.changes, one.settled)):
        return other
    return Plan(in_order((*one.changes, *other.changes)), (*one.settled, *other.settled))
