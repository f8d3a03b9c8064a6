"""Leadership of this replica: until when it leads, and why it is on standby.

Two replicas never lead at once, for this reason: a leader counts from the moment at which it *sent* its last renewal, and stops
before the lease ends. A standby counts the whole lease from the moment at which it *received* the latest change of the lease.
The second moment is never before the first, whatever the wall clocks show.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import structlog

from keysync.config.operation import LeaderElection
from keysync.failures import CallFailed, FailureRecord
from keysync.report.status import LeaseTrouble

_USED: Final = 0.8  # of the time between the renew deadline and the end of the lease; the rest is for requests that a vault has received
_NEVER: Final = float("-inf")


class Term(asyncio.Event):
    """The stop event of the runs of one term.

    It counts as set as soon as the lead has ended, even before a timer sets it: a process that was frozen must not begin
    a write before its timers have fired.
    """

    def __init__(self, leads: Callable[[], bool]) -> None:
        super().__init__()
        self._leads = leads

    def is_set(self) -> bool:
        """Whether writes must no longer begin."""
        return super().is_set() or not self._leads()


class Standby(NamedTuple):
    """Why a standby does not lead, in one sentence. `trouble` says why it could not take over; None if it could."""

    reason: str
    trouble: LeaseTrouble | None = None


class Leader:
    """Receives the results of a leader election (`daemon.leader_election`), and calls `elected` and `lost`.

    A write may begin for `renew_deadline` after a renewal was sent. Use it on the event loop only. `lease` and `identity`
    appear in the log. `clock` returns monotonic seconds and must be the clock of the loop's timers.
    """

    def __init__(
        self, settings: LeaderElection, *, lease: str, identity: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.identity = identity
        self.term = Term(self.leads)
        self.elected: Callable[[], None] = lambda: None
        self.lost: Callable[[], None] = lambda: None
        self._lease_duration = settings.lease_duration.total_seconds()
        self._renew_deadline = settings.renew_deadline.total_seconds()
        self._clock = clock
        self._lease = lease
        self._log: Any = structlog.get_logger("keysync", lease=lease, identity=identity)
        self._until = self._fence = _NEVER  # when the lead ends, and the time of grace for active writes
        self._leading = False  # as of the last callback
        self._timer: asyncio.TimerHandle | None = None
        self._read_at: float | None = None
        self._other: str | None = None  # the other replica that had the lease when it was last read
        self._failure: FailureRecord | None = None

    def leads(self) -> bool:
        """Whether runs and writes may begin."""
        return self._clock() < self._until

    def grace(self) -> float:
        """Seconds for which active writes may continue; 0 if none may."""
        return max(0.0, self._fence - self._clock())

    def check(self) -> None:
        """Raises CallFailed after the grace period of a lost lead."""
        if self.grace() <= 0:
            raise CallFailed(FailureRecord(kind="timeout", summary="this replica no longer leads: nothing is sent"))

    def standby(self) -> Standby:
        """The state of a replica that does not lead."""
        failure = f": {self._failure.summary}" if self._failure is not None else ""
        could_not = f"standing by, but could not take over: the Lease {self._lease} was"
        if self._read_at is None:
            return Standby(f"{could_not} never read{failure}", "never_read")
        age = self._clock() - self._read_at
        if age > self._lease_duration:
            return Standby(f"{could_not} last read {age:.0f} s ago{failure}", "stale")
        if self._other is not None:
            return Standby("standing by: another replica leads")
        return Standby(
            f"standing by: no other replica holds the Lease {self._lease}, and this one has not taken it yet{failure}"
        )

    def close(self) -> None:
        """Stops all callbacks."""
        self.elected = self.lost = lambda: None
        if self._timer is not None:
            self._timer.cancel()

    # Called by the elector

    def read(self, received: float, other: str | None) -> None:
        """The lease was read; the reply arrived at `received`. `other` is the other replica that has it, if any."""
        before, self._read_at, self._other = self._other, received, other
        if other is not None:
            self._failure = None
            now = self._clock()
            self._until, self._fence = min(self._until, now), min(self._fence, now)
            self._update("another replica holds it")
            if other != before:
                self._log.info("leader.standing_by", holder=other)

    def renewed(self, sent: float) -> None:
        """This replica wrote the lease; the request was sent at `sent`."""
        self._failure, self._read_at, self._other = None, sent, None
        self._update()  # if the lead ended before the reply arrived, this begins another term
        until = sent + self._renew_deadline
        if until > self._until:
            self._until, self._fence = until, until + _USED * (self._lease_duration - self._renew_deadline)
        self._update()

    def failed(self, record: FailureRecord) -> None:
        """The lease could not be read or written. Logged once while the failure stays the same."""
        if self._failure != record:
            self._failure = record
            self._log.warning("leader.failed", reason=record.summary, http_status=record.http_status, hint=record.hint)

    def _update(self, reason: str = "it was not renewed in time") -> None:
        """Reports the begin or end of a term, and sets the timer for the end. A timer may fire slightly early."""
        if self._timer is not None:
            self._timer.cancel()
        left = self._until - self._clock()
        self._timer = asyncio.get_running_loop().call_later(left, self._update) if left > 0 else None
        if self._leading == (left > 0):
            return
        self._leading = left > 0
        if self._leading:
            self.term = Term(self.leads)
            self._log.info("leader.elected")
            self.elected()
        else:
            self.term.set()
            self._log.warning("leader.lost", reason=reason)
            self.lost()
