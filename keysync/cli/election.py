"""`leader_election`: who stands for what. Nothing of Kubernetes is imported unless it is configured."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from keysync.config.settings import LeaderElection
from keysync.daemon.leadership import Leadership
from keysync.daemon.tenure import Terms
from keysync.errors import UsageError
from keysync.report.threads import in_thread
from keysync.sync.shard import Shard

if TYPE_CHECKING:
    from keysync.daemon.leases import Candidate

_RELEASE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Election:
    """A candidate, and the lead that it tells of."""

    leadership: Leadership
    candidate: Candidate

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
) -> Election | None:
    """The election that is `wanted`, not begun yet; each shard has a lease of its own. Needs a running loop. Raises UsageError."""
    if wanted is None:
        return None
    try:
        from keysync.daemon import leases  # noqa: PLC0415  # an extra, and 0.4 s
    except ImportError:
        raise UsageError("leader_election: needs an extra: in a clone, pip install '.[kubernetes]'") from None
    in_cluster = bool(environ.get("KUBERNETES_SERVICE_HOST"))
    namespace = wanted.namespace or leases.namespace_of_pod(in_cluster=in_cluster)
    lease = wanted.lease if shard is None else f"{wanted.lease}-{shard.index}"
    identity = wanted.identity or _identity(environ)
    terms = Terms(
        wanted.lease_duration.total_seconds(),
        wanted.renew_deadline.total_seconds(),
        wanted.retry_period.total_seconds(),
    )
    leadership = Leadership(terms, lease=f"{namespace}/{lease}", identity=identity)
    candidate = leases.Candidate(
        leases.connect(in_cluster=in_cluster),
        namespace=namespace,
        lease=lease,
        identity=identity,
        terms=terms,
        told=leadership,
        post=partial(_post, asyncio.get_running_loop()),
        in_cluster=in_cluster,
    )
    return Election(leadership, candidate)


def _identity(environ: Mapping[str, str]) -> str:
    # With something of its own: two processes of one name, as on a node's own network, would both be the leader.
    return f"{environ.get('HOSTNAME') or socket.gethostname()}_{uuid.uuid4().hex[:8]}"


def _post(loop: asyncio.AbstractEventLoop, call: object, *arguments: object) -> None:
    try:
        loop.call_soon_threadsafe(call, *arguments)  # type: ignore[arg-type]  # whatever it is, it takes them
    except RuntimeError:
        return  # the loop has closed: nobody leads here any more
