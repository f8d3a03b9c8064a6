"""Plans the accounts of a run as they respond, and refuses those whose keys cannot be right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from keysync.secret.value import SecretValue
from keysync.sync.collect import Collected
from keysync.sync.model import WRITES, Change, ItemRef, Observed, Plan, in_order
from keysync.sync.plan import plan_account
from keysync.sync.write import ApplyInputs


class Planner:
    """Makes the plan of the accounts added since the last `take`. `only_unmanaged`: of secrets that keysync does not manage yet.

    Accounts without a write keep only their changes; in a large fleet these are nearly all.
    """

    def __init__(self, clock: Callable[[], datetime], *, only_unmanaged: bool) -> None:
        self._clock = clock
        self._only_unmanaged = only_unmanaged
        self._owners: dict[int, str] = {}
        # Accounts (ARM ids) that share a key, with the reason. It may grow while a plan is applied.
        self._untrusted: dict[str, str] = {}
        self._start()

    def _start(self) -> None:
        self._changes: list[Change] = []
        self._observed: dict[ItemRef, Observed] = {}
        self._values: dict[ItemRef, SecretValue] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no account was added since the last `take`."""
        return not self._changes

    def add(self, account: Collected) -> None:
        """Plans one more account."""
        planned = (*plan_account(account.observed, self._clock()), *account.failed)
        changes = [each for each in planned if each.unmanaged or each.error or not self._only_unmanaged]
        self._changes += changes
        if any(change.kind in WRITES for change in changes):
            self._observed |= {observed.item.ref: observed for observed in account.observed}
            self._values |= account.values
        # No two accounts have a key in common, so if two replies do, one of them is wrong.
        for key in account.keys:
            # A hash of 64 bits takes less memory than the fingerprint, and two keys hardly ever have the same.
            owner = self._owners.setdefault(hash(key), account.account)
            for one, other in ((owner, account.account), (account.account, owner)) if owner != account.account else ():
                reason = f"the service gave the same key for {other}, so one of the two replies is wrong: not written"
                self._untrusted.setdefault(one, reason)

    def take(self, orphans: Sequence[Change] = (), *, accepted: bool = False) -> tuple[Plan, ApplyInputs]:
        """The plan, with the `orphans` to remove, and what writing it needs. `accepted`: a person accepted the plan."""
        plan = Plan(in_order(map(self._checked, (*self._changes, *orphans))))
        inputs = ApplyInputs(self._observed, self._values, accepted, self._untrusted)
        self._start()
        return plan, inputs

    def _checked(self, change: Change) -> Change:
        """`change`, refused if its account shares a key. It still counts as managed, for the limits."""
        reason = self._untrusted.get(change.ref.account)
        if reason is None or change.kind in {"failed", "refused"} or change.verdict == "orphaned":
            return change
        return Change(change.ref, "refused", reason=reason, before=change.before, managed=change.managed)
