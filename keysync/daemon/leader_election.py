"""Leader election on a Lease: whether this replica leads, until when, and why it is on standby.

Two replicas never lead at once, for this reason: a leader counts from the moment at which it *sent* its last renewal, and stops
before the lease ends. A standby counts the whole lease from the moment at which it *received* the latest change of the lease.
The second moment is never before the first, whatever the wall clocks show. Both use the monotonic clock only.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from random import Random
from typing import Any, Final, NamedTuple

import structlog

from keysync.config.operation import LeaderElection
from keysync.daemon.lease_client import SERVICE_ACCOUNT, Lease, LeaseClient
from keysync.errors import UsageError
from keysync.failures import CallFailed, FailureRecord
from keysync.files import read_small
from keysync.report.status import LeaseTrouble
from keysync.sources.shard import Shard

_USED: Final = 0.8  # of the time between the renew deadline and the end of the lease; the rest is for requests that a vault has received
_RELEASE_SECONDS: Final = 2.0
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


class LeaderElector:
    """Takes part in the election until `release` or `close`, and calls `elected` and `lost`. Use it on the event loop only.

    A write may begin for `renew_deadline` after a renewal was sent. Every failure leads to another try. `clock` returns monotonic
    seconds and must be the clock of the loop's timers.
    """

    def __init__(
        self,
        client: LeaseClient,
        settings: LeaderElection,
        identity: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.identity = identity
        self.term = Term(self.leads)
        self.elected: Callable[[], None] = lambda: None
        self.lost: Callable[[], None] = lambda: None
        self._client = client
        self._lease_duration = settings.lease_duration.total_seconds()
        self._renew_deadline = settings.renew_deadline.total_seconds()
        self._retry_period = settings.retry_period.total_seconds()
        self._clock = clock
        self._log: Any = structlog.get_logger("keysync", lease=client.lease, identity=identity)
        self._random = Random()  # noqa: S311  # nosec B311  # when to try again is no secret
        self._task: asyncio.Task[None] | None = None
        self._until = self._fence = _NEVER  # when the lead ends, and the time of grace for active writes
        self._leading = False  # as of the last callback
        self._timer: asyncio.TimerHandle | None = None
        self._observed: Lease | None = None
        self._since = 0.0  # when this replica first saw that version of the Lease
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
        could_not = f"standing by, but could not take over: the Lease {self._client.lease} was"
        if self._read_at is None:
            return Standby(f"{could_not} never read{failure}", "never_read")
        age = self._clock() - self._read_at
        if age > self._lease_duration:
            return Standby(f"{could_not} last read {age:.0f} s ago{failure}", "stale")
        if self._other is not None:
            return Standby("standing by: another replica leads")
        return Standby(
            f"standing by: no other replica holds the Lease {self._client.lease}, and this one has not taken it yet{failure}"
        )

    def start(self) -> None:
        """Begins to try. Needs a running loop."""
        self._task = asyncio.create_task(self._run(), name="leader election")

    async def release(self) -> None:
        """Ends, and releases the Lease, so that a standby takes over at once. Call it after the last write."""
        await self._stop()
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                lease = await self._client.get()
                if lease is not None and lease.holder == self.identity:
                    await self._client.write(lease, {**lease.spec, "holderIdentity": None})
        except (CallFailed, TimeoutError):
            return  # the Lease expires

    async def close(self) -> None:
        """Ends, and lets the Lease expire unless it was released."""
        await self._stop()
        await self._client.close()

    async def _stop(self) -> None:
        self.elected = self.lost = lambda: None
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    # Calls

    async def _run(self) -> None:
        while True:
            started = self._clock()
            try:
                await self.try_acquire_or_renew()
            except CallFailed as error:
                self._failed(error.record)
            except Exception as error:  # noqa: BLE001  # no error may end the election
                self._failed(FailureRecord("internal", f"unexpected {type(error).__name__}"))
            await asyncio.sleep(self._next_try(started) - self._clock())

    def _next_try(self, started: float) -> float:
        # A standby tries twice as often as a leader renews, and as soon as the Lease may be free.
        period = self._retry_period / (1 if self.leads() else 2)
        following = started + period * self._random.uniform(0.8, 1.0)  # replicas that start together drift apart
        free_at = self._free_at()
        return min(following, free_at) if free_at > self._clock() else following

    async def try_acquire_or_renew(self) -> None:
        """Reads the Lease, and writes it if no other replica can still lead. Raises CallFailed."""
        lease = await self._client.get()
        if lease is not None:
            received = self._clock()
            if self._observed is None or self._observed.version != lease.version:
                self._since = received
            self._observed = lease
            self._read(received, lease.holder if lease.holder != self.identity else None)
        sent = self._clock()
        if lease is None or self._free_at() <= sent:
            written = await self._client.write(lease, self._spec(lease))
            if written is not None and written.holder == self.identity:
                self._renewed(sent)

    def _free_at(self) -> float:
        """From when on this replica may write: no other replica can lead any more."""
        lease = self._observed
        if lease is None or lease.holder in {None, self.identity}:
            return _NEVER
        return self._since + max(self._lease_duration, lease.number("leaseDurationSeconds"))

    def _spec(self, before: Lease | None) -> dict[str, object]:
        """The spec with this replica as the holder. Its times are for people: no replica decides by a wall clock."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # MicroTime
        spec: dict[str, object] = {} if before is None else dict(before.spec)
        if before is None or before.holder != self.identity:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = 0 if before is None else before.number("leaseTransitions") + 1
        duration = int(self._lease_duration)
        return {**spec, "holderIdentity": self.identity, "leaseDurationSeconds": duration, "renewTime": now}

    # Their results

    def _read(self, received: float, other: str | None) -> None:
        """The lease was read; the reply arrived at `received`. `other` is the other replica that has it, if any."""
        before, self._read_at, self._other = self._other, received, other
        if other is not None:
            self._failure = None
            now = self._clock()
            self._until, self._fence = min(self._until, now), min(self._fence, now)
            self._update("another replica holds it")
            if other != before:
                self._log.info("leader.standing_by", holder=other)

    def _renewed(self, sent: float) -> None:
        """This replica wrote the lease; the request was sent at `sent`."""
        self._failure, self._read_at, self._other = None, sent, None
        self._update()  # if the lead ended before the reply arrived, this begins another term
        until = sent + self._renew_deadline
        if until > self._until:
            self._until, self._fence = until, until + _USED * (self._lease_duration - self._renew_deadline)
        self._update()

    def _failed(self, record: FailureRecord) -> None:
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


def open_election(
    settings: LeaderElection | None, shard: Shard | None, environ: Mapping[str, str] = os.environ
) -> LeaderElector | None:
    """The configured election, not started yet; None without `leader_election`. Each shard has its own Lease.

    Needs a running loop. Raises UsageError outside a pod, or if the pod has no token.
    """
    if settings is None:
        return None
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        message = "KUBERNETES_SERVICE_HOST or KUBERNETES_SERVICE_PORT is not set: leader election works in a pod only"
        raise UsageError(f"leader_election: no way to Kubernetes: {message}")
    name = settings.lease if shard is None else f"{settings.lease}-{shard.index}"
    # With a random part: two processes with the same host name (hostNetwork) would both lead.
    identity = settings.identity or f"{environ.get('HOSTNAME') or socket.gethostname()}_{uuid.uuid4().hex[:8]}"
    try:
        namespace = settings.namespace or read_small(SERVICE_ACCOUNT / "namespace").decode().strip()
        url = f"https://{f'[{host}]' if ':' in host else host}:{port}"
        # After one request that hangs there is time for another before the renew deadline.
        client = LeaseClient(url, namespace, name, SERVICE_ACCOUNT, settings.renew_deadline.total_seconds() / 4)
    except (CallFailed, OSError, ValueError) as error:
        message = f"{error}; does the pod have the token of its service account (automountServiceAccountToken)?"
        raise UsageError(f"leader_election: no way to Kubernetes: {message}") from None
    return LeaderElector(client, settings, identity)
