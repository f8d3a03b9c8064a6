"""Two and three replicas over a network that loses and delays: no two may write at once, whatever gets lost or late."""

from __future__ import annotations

import heapq
from collections.abc import Coroutine, Generator, Mapping
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from keysync.daemon.leader_election import LeaderElector
from keysync.daemon.lease_client import Lease, LeaseClient
from keysync.failures import CallFailed, FailureRecord
from tests.support.settings import election_of
from tests.support.warp import Warp, WarpLoop

SETTINGS = election_of(lease_duration="10s", renew_deadline="7s", retry_period="2s")
LOST = CallFailed(FailureRecord("connection", "no answer from Kubernetes: TimeoutError"))


class Wait:
    """Waits for `seconds` of the simulation, which resumes the coroutine by then."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __await__(self) -> Generator[float, None, None]:
        yield self.seconds


class Server:
    """The lease on the server."""

    def __init__(self) -> None:
        self.version = 0
        self.spec: Mapping[str, object] = {}

    def lease(self) -> Lease:
        holder = self.spec.get("holderIdentity")
        return Lease({}, self.spec, str(self.version), holder if isinstance(holder, str) else None)


class Network(LeaseClient):
    """The way to the server: each message takes a while, and some never arrive."""

    def __init__(self, server: Server, random: Random) -> None:
        self.lease = "render/keysync"
        self.server = server
        self.random = random

    async def leg(self, loss: float) -> None:
        await Wait(self.random.choice((0.0, 0.01, 0.5, 3.0, 6.0)))
        if self.random.random() < loss:
            raise LOST

    async def get(self) -> Lease | None:
        await self.leg(0.0)
        lease = self.server.lease()
        await self.leg(0.25)
        return lease

    async def write(self, before: Lease | None, spec: Mapping[str, object]) -> Lease | None:
        await self.leg(0.25)
        if before is None or before.version != str(self.server.version):
            return None
        self.server.version += 1
        self.server.spec = spec
        lease = self.server.lease()
        await self.leg(0.25)
        return lease


class Replica:
    """A replica that tries, sleeps, and is frozen now and then. `now` is its monotonic clock."""

    def __init__(self, name: str, server: Server, random: Random) -> None:
        self.now = 0.0
        self.elector = LeaderElector(Network(server, random), SETTINGS, name, clock=lambda: self.now)
        self.random = random

    async def live(self) -> None:
        while True:
            try:
                await self.elector.try_acquire_or_renew()
            except CallFailed as failure:
                self.elector._failed(failure.record)
            await Wait(self.random.choice((2.0, 2.0, 2.0, 15.0)))


def replicas_that_may_write(random: Random, count: int) -> Generator[set[str], None, None]:
    """After each of 400 steps, the replicas whose writes may be active."""
    server = Server()
    replicas = [Replica(f"replica-{number}", server, random) for number in range(count)]
    lives: list[Coroutine[Any, None, None]] = [replica.live() for replica in replicas]
    queue = [(random.random(), number) for number in range(count)]
    heapq.heapify(queue)
    for _ in range(400):
        now, number = heapq.heappop(queue)
        replicas[number].now = now
        seconds: float = lives[number].send(None)
        heapq.heappush(queue, (now + seconds, number))
        for replica in replicas:
            replica.now = now
        yield {replica.elector.identity for replica in replicas if replica.elector.grace() > 0}
    for life in lives:
        life.close()


@given(seed=st.integers(0, 2**32), count=st.integers(2, 3))
def test_two_replicas_never_lead_at_once(seed: int, count: int) -> None:
    """Nor may a write of one go on while another leads, whatever is lost, late or frozen."""
    random = Random(seed)  # noqa: S311  # chance for a simulation

    async def simulate() -> list[set[str]]:
        return list(replicas_that_may_write(random, count))  # the loop is for timers, which never fire

    loop = WarpLoop(Warp())
    try:
        with capture_logs():
            steps = loop.run_until_complete(simulate())
    finally:
        loop.close()
    assert all(len(may_write) <= 1 for may_write in steps)
    assert any(steps)
