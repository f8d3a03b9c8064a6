"""What the rotation of an account needs next, and why not yet: a pure function of ages, tags, verdicts and the time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from keysync.rotation.claim import Claim
from keysync.sources.interface import KeyName

Step: TypeAlias = Literal["regenerate", "switch", "retire"]
"""`regenerate`: a new idle key, and the switch to it. `switch`: to an idle key that is new already. `retire`: a new key in the
slot that consumers have left."""


_ONE_RUN: Final = timedelta(minutes=5)
"""Secrets that one run creates have times that differ by less. That one of them is newer then means nothing."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How often to rotate. `every` is None for an account that is only switched by hand."""

    every: timedelta | None
    grace: timedelta
    retire: bool = False


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """One key of the account. `version` is that of its secret in the account's first vault, `since` the oldest creation of the
    current version in any vault, UTC: the key is at least that old."""

    version: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """An account after a run.

    `active` has the slot that each vault's active secret is tagged with, `slots` the keys by name, `switched` when the newest
    version of an active secret was made. `obstacle` says why nothing may be done at all now: a secret that is not in sync,
    read-only, a standby, an account without SharedKey, a key that was not proven, a safety limit. `opens` is when the window
    opens next; None if it is open. `now` is the vault's time. All times are in UTC.
    """

    active: Mapping[str, KeyName]
    slots: Mapping[KeyName, SlotFacts]
    switched: datetime
    now: datetime
    claim: Claim | None = None
    obstacle: str | None = None
    opens: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The next `step` of the `slot` that is not active, None if there is none, and when it is `due` (UTC).

    `blocked` says why a due step cannot be done now.
    """

    active: KeyName | None
    step: Step | None = None
    slot: KeyName | None = None
    due: datetime | None = None
    blocked: str | None = None

    def is_ready(self, now: datetime) -> bool:
        """Whether the step can be done now."""
        return self.step is not None and self.blocked is None and self.due is not None and self.due <= now


def decide(facts: Facts, policy: Policy, *, early: bool = False) -> Decision:
    """What the account needs next. With `early` a rotation is due now, whatever the age of its key."""
    active = active_slot(facts)
    if active is None:
        return Decision(None, blocked="the vaults disagree about the active key, and no rotation explains it")
    idle = next(slot for slot in facts.slots if slot != active)
    step, due = _next_step(facts, policy, active, idle)
    if step is None:
        return Decision(active)
    if early and step == "regenerate":
        due = facts.now
    blocked = next(_blocks(facts, policy, step), None) if due <= facts.now else None
    return Decision(active, step, idle, due, blocked)


def active_slot(facts: Facts) -> KeyName | None:
    """The slot that consumers use.

    During a switch some vaults have the new slot already. Both keys are valid then, and the claim names the new one.
    """
    named = set(facts.active.values())
    if len(named) == 1:
        return named.pop()
    claim = facts.claim
    if claim is not None and claim.phase == "rotating" and claim.slot in named:
        return next(slot for slot in facts.slots if slot != claim.slot)
    return None


def _next_step(facts: Facts, policy: Policy, active: KeyName, idle: KeyName) -> tuple[Step | None, datetime]:
    claim, slots = facts.claim, facts.slots
    if claim is not None and claim.has_regenerated(idle, slots[idle].version):
        return "switch", facts.now
    if policy.every is None:
        newer = slots[idle].since > max(slots[active].since, facts.switched) + _ONE_RUN
        return ("switch" if newer else None), facts.now
    if claim is not None and claim.left(idle, slots[idle].version) and (policy.retire or claim.phase == "retiring"):
        return "retire", facts.switched + policy.grace
    return "regenerate", slots[active].since + policy.every


def _blocks(facts: Facts, policy: Policy, step: Step) -> Iterator[str]:
    """Why a due step cannot be done now, the most basic reason first."""
    if facts.obstacle is not None:
        yield facts.obstacle
    if step == "switch":
        return  # both keys are valid already: the sooner consumers have the new one, the better
    if facts.claim is not None and facts.claim.is_running(facts.now):
        yield "another process has begun to rotate this account"
    if facts.now < facts.switched + policy.grace:
        yield f"consumers have until {facts.switched + policy.grace:%Y-%m-%d %H:%M} UTC to read the active key of the last switch"
    if facts.opens is not None:
        yield f"the window opens at {facts.opens:%Y-%m-%d %H:%M} UTC"
