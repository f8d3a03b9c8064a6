"""Lease arithmetic: whether this process leads, and whether it may take over the lease of another replica.

Nothing here reads a clock: all times are seconds on the monotonic clock of the calling process. Two replicas never lead at
once, for this reason: a leader counts from the moment at which it *sent* its last renewal, and stops before the lease ends.
A standby counts the whole lease from the moment at which it *received* the latest change of the lease. The second moment is
never before the first, whatever the wall clocks show.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

LeadershipChange: TypeAlias = Literal["elected", "lost"]

_NEVER: Final = float("-inf")
_USED: Final = 0.8  # of the time between the renew deadline and the end of the lease; the rest is for requests that a vault has received


class LeaseState:
    """The lease of this replica: it leads until `until`, unless the lease is renewed.

    A lease is valid for `lease_duration` seconds. A write may begin for `renew_deadline` seconds after the last renewal.
    """

    def __init__(self, lease_duration: float, renew_deadline: float) -> None:
        self._renew_deadline = renew_deadline
        self._grace = _USED * (lease_duration - renew_deadline)
        self.until = self._fence = _NEVER
        self._leading = False

    def leads(self, now: float) -> bool:
        """Whether a write may begin."""
        return now < self.until

    def grace(self, now: float) -> float:
        """Seconds for which active writes may continue; 0 if none may."""
        return max(0.0, self._fence - now)

    def renewed(self, sent: float, now: float) -> tuple[LeadershipChange, ...]:
        """Records a renewal whose request was sent at `sent`, and returns the resulting changes.

        If the lead had ended before the reply arrived, the result is ``("lost", "elected")``.
        """
        ended = self.advance(now)
        until = sent + self._renew_deadline
        if until > self.until:
            self.until, self._fence = until, until + self._grace
        return (*ended, *self.advance(now))

    def lost_to_other(self, now: float) -> tuple[LeadershipChange, ...]:
        """Records that another replica holds the lease. Active writes must end at once."""
        self.until, self._fence = min(self.until, now), min(self._fence, now)
        return self.advance(now)

    def advance(self, now: float) -> tuple[LeadershipChange, ...]:
        """The changes since the last call that are due to time alone."""
        if self.leads(now) == self._leading:
            return ()
        self._leading = not self._leading
        return ("elected",) if self._leading else ("lost",)


class ObservedLease:
    """A lease as this replica last read it, and since when it is unchanged."""

    def __init__(self) -> None:
        self._version: str | None = None
        self._holder: str | None = None
        self._since = _NEVER
        self._duration = 0.0

    def record_read(self, version: str, holder: str | None, duration: float, received: float) -> None:
        """Records a reply that arrived at `received`.

        `version` changes with each write to the lease (resourceVersion); `duration` is the lease's own, in seconds.
        """
        if version != self._version:
            self._version, self._since = version, received
        self._holder, self._duration = holder, duration

    def free_at(self, identity: str, duration: float) -> float:
        """From when on `identity`, whose leases last `duration` seconds, may write: no other replica can lead any more."""
        return _NEVER if self._holder in {None, identity} else self._since + max(duration, self._duration)
