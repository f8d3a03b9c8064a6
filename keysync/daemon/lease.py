"""Whether this process leads, by what it knows of its lease; and whether a lease of somebody else may be taken over.

Nothing here reads a clock: every time is in seconds of the monotonic clock of the process that asks. That no two lead at
once rests on this: a leader counts from the moment at which it *sent* its last renewal, and stops before the lease ends;
a standby counts the whole lease from the moment at which it *received* the state that it last saw. The second moment is
never before the first, whatever the wall clocks say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

LeadershipChange: TypeAlias = Literal["elected", "lost"]

_NEVER: Final = float("-inf")
_USED: Final = (
    0.8  # of the time between the deadline and the end of the lease; the rest is for what a vault has received
)


@dataclass(frozen=True, slots=True)
class LeaseTimings:
    """How long things hold, in seconds: a lease; without a renewal, the right to begin a write; the time between two tries."""

    lease_duration: float
    renew_deadline: float
    retry_period: float

    @property
    def grace(self) -> float:
        """How long writes that were under way at the deadline may go on."""
        return _USED * (self.lease_duration - self.renew_deadline)


class LeaseState:
    """What a candidate knows of its own lead."""

    def __init__(self, terms: LeaseTimings) -> None:
        self._terms = terms
        self._until = self._fence = _NEVER
        self._leading = False

    @property
    def until(self) -> float:
        """When the lead ends unless it is renewed."""
        return self._until

    def leads(self, now: float) -> bool:
        """Whether a write may begin."""
        return now < self._until

    def admits(self, now: float) -> bool:
        """Whether a write that was under way may go on."""
        return now < self._fence

    def grace(self, now: float) -> float:
        """Seconds for which writes under way may go on."""
        return max(0.0, self._fence - now)

    def renewed(self, sent: float, now: float) -> tuple[LeadershipChange, ...]:
        """The lease was written, by a request that was sent at `sent`; what has changed by that.

        A lead that had ended before the news came has ended, though another begins with it.
        """
        ended = self.look(now)
        until = sent + self._terms.renew_deadline
        if until > self._until:
            self._until, self._fence = until, until + self._terms.grace
        return (*ended, *self.look(now))

    def taken(self, now: float) -> tuple[LeadershipChange, ...]:
        """Somebody else holds the lease: there is no grace left."""
        self._until, self._fence = min(self._until, now), min(self._fence, now)
        return self.look(now)

    def look(self, now: float) -> tuple[LeadershipChange, ...]:
        """What has changed since the last look, by time alone."""
        leads = self.leads(now)
        if leads == self._leading:
            return ()
        self._leading = leads
        return ("elected",) if leads else ("lost",)


class ObservedLease:
    """Since when a lease is as it was last seen: `version` is any mark that changes with each write to it."""

    def __init__(self) -> None:
        self._version: str | None = None
        self._holder: str | None = None
        self._since = _NEVER
        self._duration = 0.0

    def seen(self, version: str, holder: str | None, duration: float, received: float) -> None:
        """The lease was read, by a reply that was `received`; `duration` is the one that stands in it."""
        if version != self._version:
            self._version, self._since = version, received
        self._holder, self._duration = holder, duration

    def may_take(self, identity: str, duration: float, now: float) -> bool:
        """Whether `identity`, whose own leases last `duration`, may write it: nobody else can still believe to lead."""
        if self._holder is None or self._holder == identity:
            return True
        return now - self._since >= max(duration, self._duration)
