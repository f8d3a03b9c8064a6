"""The gate between plan and apply: whether each round of a pass may be written, and what the next `--accept` would take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from keysync.sync.model import Change, ItemRef, Outcome, Plan, Result
from keysync.sync.safety import (
    Breach,
    LimitsLike,
    breaches,
    checksum,
    held_message,
    late_message,
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

    def __init__(self, limits: Mapping[str, LimitsLike], *, accept: str | None, dry_run: bool) -> None:
        self._limits = limits
        self._accept = accept
        self._dry_run = dry_run
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

    def _look_at(self, plan: Plan) -> None:
        if self._accept is not None:
            if self._accept != checksum(plan):
                self._refusal = refusal_of(self._accept, checksum(plan))
        elif not self._dry_run and not self._breaches:
            self._breaches = breaches(_joined(self._let_through, plan), self._limits)
            if self._breaches and any(_is_written(change) for change in self._let_through.writes):
                self._late = late_message(self._breaches)

    def _undone(self) -> Undone | None:
        if self._late is not None:
            return Undone("refused", self._late)
        if self._breaches or self._refusal:
            return Undone("skipped", "a safety limit stopped the pass: not written")
        return None

    @property
    def checksum(self) -> str:
        """Of the whole plan or, where something was left undone, of just that: it is what the next pass would find to do."""
        kept = [change for change in self._let_through.writes if self._accept is None and not _is_written(change)]
        undone = _joined(self._left_undone, Plan(tuple(kept)))
        waits = any(not change.read_only for change in undone.writes)
        return checksum(undone if waits and not self._dry_run else self._let_through)

    @property
    def stopped(self) -> str | None:
        """The error of a stopped pass."""
        if self._breaches and self._late is None:
            return stop_message(self._breaches, self.checksum)
        return self._refusal

    def told(self, result: Result) -> Result:
        """The result, with the command that has a change made that was held back."""
        held = self._held.get(result.ref)
        if held is not None:
            outcome = result.outcome if self._dry_run or result.outcome == "refused" else "skipped"
            return replace(result, outcome=outcome, reason=held_message(held, self.checksum))
        if self._late is not None and result.reason == self._late:
            return replace(result, reason=held_message(self._late, self.checksum))
        return result


def _is_written(change: Change) -> bool:
    return not change.read_only and not change.held


def _joined(one: Plan, other: Plan) -> Plan:
    return Plan(tuple(sorted((*one.changes, *other.changes), key=lambda change: change.ref)))
