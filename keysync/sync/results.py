"""Results of changes that are not carried out: in a plan, in a dry run, or because a limit stopped the run."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from keysync.sync.limits import Blocked
from keysync.sync.model import REMOVALS, WRITES, Change, Plan, Result

_READ_ONLY: Final = "read_only is set here: not written"


def planned(change: Change) -> Result:
    """The result of a change that is not carried out: what it would do, or why there is nothing to do."""
    version = change.before if change.kind == "unchanged" else None
    outcome, reason = change.kind, change.reason
    if change.needs_accept and change.kind not in REMOVALS:
        outcome, reason = "refused", change.needs_accept
    elif change.read_only and change.kind in WRITES:
        reason = f"{reason}; {_READ_ONLY}" if reason else _READ_ONLY
    return Result(change.ref, outcome, version, reason, change.error, change.verdict, change.since)


def unwritten(plan: Plan, blocked: Blocked | None) -> tuple[Result, ...]:
    """The results of a plan that is only shown, or `blocked` by a limit."""
    return (*plan.in_sync, *(_unwritten(change, blocked) for change in plan.changes))


def _unwritten(change: Change, blocked: Blocked | None) -> Result:
    result = planned(change)
    if blocked is None or change.read_only or change.kind not in WRITES:
        return result
    return replace(result, outcome=blocked.outcome, reason=blocked.reason)
