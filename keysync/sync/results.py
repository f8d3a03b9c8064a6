"""Results of changes that are not carried out: in a plan, a dry run, or a run that the limits stop."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from keysync.sync.limits import Blocked
from keysync.sync.model import REMOVALS, WRITES, Change, Plan, Result

_READ_ONLY: Final = "read_only is set here: not written"


def planned(change: Change) -> Result:
    """The result of a change that is not carried out: what it would be, or why there is nothing to do."""
    version = change.before if change.kind == "unchanged" else None
    outcome, reason = change.kind, change.reason
    if change.held and change.kind not in REMOVALS:
        outcome, reason = "refused", change.held
    elif change.read_only and change.kind in WRITES:
        reason = f"{reason}; {_READ_ONLY}" if reason else _READ_ONLY
    return Result(change.ref, outcome, version, reason, change.error, change.verdict, change.since)


def unwritten(plan: Plan, blocked: Blocked | None) -> tuple[Result, ...]:
    """The results of a plan that is only shown, or `blocked` by the limits."""
    return (*plan.in_sync, *(_unwritten(change, blocked) for change in plan.changes))


def _unwritten(change: Change, blocked: Blocked | None) -> Result:
    if blocked is None or change.read_only or change.kind not in WRITES:
        return planned(change)
    return replace(planned(change), outcome=blocked.outcome, reason=blocked.reason)
