"""Leadership of this replica: terms that begin and end, and the leader election that decides them."""

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

from keysync.calls import CallGuard, CallTicket
from keysync.config.settings import LeaderElection
from keysync.daemon.lease import LeadershipChange, LeaseState, LeaseTimings
from keysync.errors import UsageError
from keysync.failures import CallFailed, FailureRecord
from keysync.report.status import LeaseTrouble
from keysync.report.threads import in_thread
from keysync.sync.shard import Shard


class Term(asyncio.Event):
    """The stop of the runs of one term. It counts as set as soon as the lead has ended, also where nobody has set it yet:
    a process that was frozen must not begin a write before its timers have had their turn."""

    def __init__(self, leads: Callable[[], bool]) -> None:
        super().__init__()
        self._leads = leads

    def is_set(self) -> bool:
        """Whether no write may begin any more."""
        return super().is_set() or not self._leads()


class Standby(NamedTuple):
    """What a standby waits for, in one sentence; `trouble` says why it could not take over, None where it could."""

    reason: str
    trouble: LeaseTrouble | None = None


def _nothing() -> None:
    """Nobody waits for it."""


class Leader:
    """Told by an election (`daemon.leases`) what became of the lease; tells `elected` and `lost`. On the event loop only.

    `lease` and `identity` are for the log; `clock` is monotonic, in seconds, and the loop's timers run by it.
    """

    def __init__(
        self,
        terms: LeaseTimings,
        *,
        lease: str,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
        log: Any = None,  # noqa: ANN401  # structlog's proxy has no type of its own
    ) -> None:
        self._tenure = LeaseState(terms)
        self._lease_duration = terms.lease_duration
        self._clock = clock
        self._log = log or structlog.get_logger("keysync")
        self._lease = lease
        self._identity = identity
        self._timer: asyncio.TimerHandle | None = None
        self._holder: str | None = None
        self._read_at: float | None = None
        self._is_held = False  # by another replica, when the lease was last read
        self._failure: tuple[str, int | None] | None = None
        self.elected: Callable[[], None] = _nothing
        self.lost: Callable[[], None] = _nothing
        self.term = Term(self.leads)

    def leads(self) -> bool:
        """Whether runs and writes may begin."""
        return self._tenure.leads(self._clock())

    def grace(self) -> float:
        """Seconds for which what is under way may go on."""
        return self._tenure.grace(self._clock())

    def guard(self, inner: CallGuard) -> CallGuard:
        """A guard that lets nothing through once the time of grace is over, and before that what `inner` does."""
        return _TermGuard(lambda: self._tenure.admits(self._clock()), inner)

    def standby(self) -> Standby:
        """How a replica that does not lead stands by."""
        failure = f": {self._failure[0]}" if self._failure is not None else ""
        if self._read_at is None:
            return Standby(
                f"standing by, but could not take over: the Lease {self._lease} was never read{failure}", "never_read"
            )
        age = self._clock() - self._read_at
        if age > self._lease_duration:
            last = f"the Lease {self._lease} was last read {age:.0f} s ago"
            return Standby(f"standing by, but could not take over: {last}{failure}", "outdated")
        if self._is_held:
            return Standby("standing by: another replica leads")
        return Standby(
            f"standing by: no other replica holds the Lease {self._lease}, and this one has not taken it yet{failure}"
        )

    def close(self) -> None:
        """No news any more."""
        self.elected = self.lost = _nothing
        if self._timer is not None:
            self._timer.cancel()

    # What an election tells

    def read(self, received: float) -> None:
        """The lease was read, by a reply that came at `received`."""
        self._read_at = received
        self._is_held = False  # unless `held_by` follows

    def renewed(self, sent: float) -> None:
        """The lease is ours, written by a request that was sent at `sent`."""
        self._failure = None
        self.read(sent)
        self._carry_out(self._tenure.renewed(sent, self._clock()), "it was not renewed in time")
        self._set_timer()

    def held_by(self, holder: str) -> None:
        """Somebody else has the lease."""
        self._failure = None
        self._is_held = True
        self._carry_out(self._tenure.taken(self._clock()), "another replica holds it")
        if holder != self._holder:
            self._holder = holder
            self._log.info("leader.standing_by", lease=self._lease, identity=self._identity, holder=holder)

    def failed(self, reason: str, http_status: int | None) -> None:
        """The lease could not be read or written; told once as long as the reason stays the same."""
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
            delay = self._tenure.until - self._clock()
            self._timer = asyncio.get_running_loop().call_later(delay, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        self._carry_out(self._tenure.look(self._clock()), "it was not renewed in time")
        self._set_timer()  # a timer may ring a moment early

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


class _TermGuard:
    def __init__(self, admits: Callable[[], bool], inner: CallGuard) -> None:
        self._admits = admits
        self._inner = inner

    async def admit(self) -> CallTicket:
        ticket = await self._inner.admit()
        if self._admits():
            return ticket
        ticket.gave_up()
        raise CallFailed(FailureRecord(kind="timeout", summary="this replica does not lead any more: nothing is sent"))


if TYPE_CHECKING:
    from keysync.daemon.leader_election import LeaderElector

_RELEASE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class OpenElection:
    """A candidate, and the lead that it tells of."""

    leadership: Leader
    candidate: LeaderElector

    async def release(self) -> None:
        """Ends it and gives the lease back, so that the standby takes over at once. For when nothing is written any more."""
        self.leadership.close()
        try:
            await in_thread(self.candidate.release, seconds=_RELEASE_SECONDS, name="release the lease")
        except TimeoutError:
            return  # it runs out by itself

    def abandon(self) -> None:
        """Ends it and leaves the lease to run out: for when a write may still be on its way."""
        self.leadership.close()
        self.candidate.abandon()


def open_election(
    wanted: LeaderElection | None, shard: Shard | None, environ: Mapping[str, str] = os.environ
) -> OpenElection | None:
    """The election that is `wanted`, not begun yet; each shard has a lease of its own. Needs a running loop. Raises UsageError."""
    if wanted is None:
        return None
    try:
        from keysync.daemon import leader_election  # noqa: PLC0415  # an extra, and 0.4 s
    except ImportError:
        raise UsageError("leader_election: needs an extra: in a clone, pip install '.[kubernetes]'") from None
    in_cluster = bool(environ.get("KUBERNETES_SERVICE_HOST"))
    namespace = wanted.namespace or leader_election.namespace_of_pod(in_cluster=in_cluster)
    lease = wanted.lease if shard is None else f"{wanted.lease}-{shard.index}"
    identity = wanted.identity or _identity(environ)
    terms = LeaseTimings(
        wanted.lease_duration.total_seconds(),
        wanted.renew_deadline.total_seconds(),
        wanted.retry_period.total_seconds(),
    )
    leadership = Leader(terms, lease=f"{namespace}/{lease}", identity=identity)
    candidate = leader_election.LeaderElector(
        leader_election.connect(in_cluster=in_cluster),
        namespace=namespace,
        lease=lease,
        identity=identity,
        terms=terms,
        told=leadership,
        post=partial(_post, asyncio.get_running_loop()),
        in_cluster=in_cluster,
    )
    return OpenElection(leadership, candidate)


def _identity(environ: Mapping[str, str]) -> str:
    # With something of its own: two processes of one name, as on a node's own network, would both be the leader.
    return f"{environ.get('HOSTNAME') or socket.gethostname()}_{uuid.uuid4().hex[:8]}"


def _post(loop: asyncio.AbstractEventLoop, call: object, *arguments: object) -> None:
    try:
        loop.call_soon_threadsafe(call, *arguments)  # type: ignore[arg-type]  # whatever it is, it takes them
    except RuntimeError:
        return  # the loop has closed: nobody leads here any more
