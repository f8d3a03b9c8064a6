"""Leadership of this replica: its terms, and the leader election that begins and ends them."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog

from keysync.calls import CallAdmission, CallPermit
from keysync.config.model import LeaderElection
from keysync.daemon.lease import LeadershipChange, LeaseState, LeaseTimings
from keysync.errors import UsageError
from keysync.failures import CallFailed, FailureRecord
from keysync.report.status import LeaseTrouble
from keysync.report.threads import in_thread
from keysync.sources.shard import Shard

if TYPE_CHECKING:
    from keysync.daemon.leader_election import LeaderElector

_RELEASE_SECONDS: Final = 2.0


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


def _nothing() -> None:
    """No-op callback."""


class Leader:
    """Receives the results of a leader election (`daemon.leader_election`), and calls `elected` and `lost`.

    Use it on the event loop only. `lease` and `identity` appear in the log. `clock` returns monotonic seconds and must be
    the clock of the loop's timers.
    """

    def __init__(
        self,
        timings: LeaseTimings,
        *,
        lease: str,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
        log: Any = None,  # noqa: ANN401  # structlog's proxy has no type of its own
    ) -> None:
        self._state = LeaseState(timings)
        self._lease_duration = timings.lease_duration
        self._clock = clock
        self._log = log or structlog.get_logger("keysync")
        self._lease = lease
        self._identity = identity
        self._timer: asyncio.TimerHandle | None = None
        self._holder: str | None = None
        self._read_at: float | None = None
        self._other_leads = False  # whether another replica had the lease when it was last read
        self._failure: tuple[str, int | None] | None = None
        self.elected: Callable[[], None] = _nothing
        self.lost: Callable[[], None] = _nothing
        self.term = Term(self.leads)

    def leads(self) -> bool:
        """Whether runs and writes may begin."""
        return self._state.leads(self._clock())

    def grace(self) -> float:
        """Seconds for which active writes may continue."""
        return self._state.grace(self._clock())

    def admission(self, inner: CallAdmission) -> CallAdmission:
        """`inner`, which also refuses all calls after the grace period of a lost lead."""
        return _TermAdmission(lambda: self._state.admits(self._clock()), inner)

    def standby(self) -> Standby:
        """The state of a replica that does not lead."""
        failure = f": {self._failure[0]}" if self._failure is not None else ""
        if self._read_at is None:
            return Standby(
                f"standing by, but could not take over: the Lease {self._lease} was never read{failure}", "never_read"
            )
        age = self._clock() - self._read_at
        if age > self._lease_duration:
            last = f"the Lease {self._lease} was last read {age:.0f} s ago"
            return Standby(f"standing by, but could not take over: {last}{failure}", "stale")
        if self._other_leads:
            return Standby("standing by: another replica leads")
        return Standby(
            f"standing by: no other replica holds the Lease {self._lease}, and this one has not taken it yet{failure}"
        )

    def close(self) -> None:
        """Stops all callbacks."""
        self.elected = self.lost = _nothing
        if self._timer is not None:
            self._timer.cancel()

    # Called by the elector

    def read(self, received: float) -> None:
        """The lease was read; the reply arrived at `received`."""
        self._read_at = received
        self._other_leads = False  # unless `other_holds` follows

    def renewed(self, sent: float) -> None:
        """This replica wrote the lease; the request was sent at `sent`."""
        self._failure = None
        self.read(sent)
        self._carry_out(self._state.renewed(sent, self._clock()), "it was not renewed in time")
        self._set_timer()

    def other_holds(self, holder: str) -> None:
        """Another replica, `holder`, has the lease."""
        self._failure = None
        self._other_leads = True
        self._carry_out(self._state.lost_to_other(self._clock()), "another replica holds it")
        if holder != self._holder:
            self._holder = holder
            self._log.info("leader.standing_by", lease=self._lease, identity=self._identity, holder=holder)

    def failed(self, reason: str, http_status: int | None) -> None:
        """The lease could not be read or written. Logged once while the reason stays the same."""
        if self._failure != (reason, http_status):
            self._failure = (reason, http_status)
            self._log.warning(
                "leader.failed", lease=self._lease, identity=self._identity, reason=reason, http_status=http_status
            )

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self.leads():
            delay = self._state.until - self._clock()
            self._timer = asyncio.get_running_loop().call_later(delay, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        self._carry_out(self._state.advance(self._clock()), "it was not renewed in time")
        self._set_timer()  # a timer may fire slightly early

    def _carry_out(self, changes: tuple[LeadershipChange, ...], reason: str) -> None:
        for change in changes:
            if change == "elected":
                self._holder = None
                self.term = Term(self.leads)
                self._log.info("leader.elected", lease=self._lease, identity=self._identity)
                self.elected()
            else:
                self.term.set()
                self._log.warning("leader.lost", lease=self._lease, identity=self._identity, reason=reason)
                self.lost()


class _TermAdmission:
    def __init__(self, admits: Callable[[], bool], inner: CallAdmission) -> None:
        self._admits = admits
        self._inner = inner

    async def admit(self) -> CallPermit:
        permit = await self._inner.admit()
        if self._admits():
            return permit
        permit.cancelled()
        raise CallFailed(FailureRecord(kind="timeout", summary="this replica no longer leads: nothing is sent"))


@dataclass(frozen=True, slots=True)
class OpenElection:
    """An elector and the leader state that it updates."""

    leadership: Leader
    elector: LeaderElector

    async def release(self) -> None:
        """Ends the election and releases the lease, so that a standby takes over at once. Call it after the last write."""
        self.leadership.close()
        try:
            await in_thread(self.elector.release, seconds=_RELEASE_SECONDS, name="release the lease")
        except TimeoutError:
            return  # the lease expires

    def abandon(self) -> None:
        """Ends the election and lets the lease expire. Used when a write may still be in flight."""
        self.leadership.close()
        self.elector.abandon()


def open_election(
    settings: LeaderElection | None, shard: Shard | None, environ: Mapping[str, str] = os.environ
) -> OpenElection | None:
    """The configured election, not started yet; None without `leader_election`. Each shard has its own lease.

    Needs a running loop. Raises UsageError if the extra ``kubernetes`` is missing or no cluster can be found.
    """
    if settings is None:
        return None
    try:
        from keysync.daemon import leader_election  # noqa: PLC0415  # an extra, and 0.4 s
    except ImportError:
        raise UsageError("leader_election: needs an extra: in a clone, pip install '.[kubernetes]'") from None
    in_cluster = bool(environ.get("KUBERNETES_SERVICE_HOST"))
    namespace = settings.namespace or leader_election.namespace_of_pod(in_cluster=in_cluster)
    lease = settings.lease if shard is None else f"{settings.lease}-{shard.index}"
    identity = settings.identity or _identity(environ)
    timings = LeaseTimings(
        settings.lease_duration.total_seconds(),
        settings.renew_deadline.total_seconds(),
        settings.retry_period.total_seconds(),
    )
    leadership = Leader(timings, lease=f"{namespace}/{lease}", identity=identity)
    elector = leader_election.LeaderElector(
        leader_election.connect(in_cluster=in_cluster),
        namespace=namespace,
        lease=lease,
        identity=identity,
        timings=timings,
        callbacks=leadership,
        call_on_loop=partial(_call_on_loop, asyncio.get_running_loop()),
        in_cluster=in_cluster,
    )
    return OpenElection(leadership, elector)


def _identity(environ: Mapping[str, str]) -> str:
    # With a random part: two processes with the same host name (hostNetwork) would both lead.
    return f"{environ.get('HOSTNAME') or socket.gethostname()}_{uuid.uuid4().hex[:8]}"


def _call_on_loop(loop: asyncio.AbstractEventLoop, call: object, *arguments: object) -> None:
    try:
        loop.call_soon_threadsafe(call, *arguments)  # type: ignore[arg-type]  # whatever it is, it takes them
    except RuntimeError:
        return  # the loop is closed: this process no longer leads
