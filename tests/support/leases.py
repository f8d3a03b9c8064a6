"""A Lease without an API server, for tests of what an election concludes from the results of its calls."""

from __future__ import annotations

from collections.abc import Mapping

from keysync.daemon.lease_client import Lease, LeaseClient
from keysync.failures import CallFailed, FailureRecord

UNREACHABLE = FailureRecord("connection", "no answer from Kubernetes: TimeoutError")


class NoLease(LeaseClient):
    """Fails each call."""

    def __init__(self) -> None:
        self.lease = "render/keysync"

    async def get(self) -> Lease | None:
        raise CallFailed(UNREACHABLE)

    async def write(self, before: Lease | None, spec: Mapping[str, object]) -> Lease | None:
        raise CallFailed(UNREACHABLE)

    async def close(self) -> None:
        pass
