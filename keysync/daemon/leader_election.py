"""Leader election on a Lease of the pod's Kubernetes cluster (coordination.k8s.io/v1).

`LeaderElector` decides whether this replica may write the Lease, and `Leader` how long it leads after a renewal. Both use the
monotonic clock only. Every request has a deadline, and every failure leads to another try.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import aiohttp

from keysync.config.operation import LeaderElection
from keysync.daemon.leader import Leader
from keysync.errors import UsageError
from keysync.failures import CallFailed, FailureKind, FailureRecord
from keysync.files import read_small
from keysync.json_values import as_mapping
from keysync.sources.shard import Shard

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # Kubernetes mounts it into each pod

_RELEASE_SECONDS: Final = 2.0
_UNAUTHORIZED, _NOT_FOUND, _CONFLICT = 401, 404, 409
_HINTS: Final[Mapping[int | None, str]] = {
    401: "the API server does not accept the token of the service account: it has expired, or is of another cluster",
    403: "the service account needs a Role with `create` of Leases, and `get` and `update` of this one",
    404: "the namespace of the Lease does not exist: create it, or fix leader_election.namespace",
}


def _failure(summary: str, http_status: int | None = None) -> CallFailed:
    kind: FailureKind = "connection" if http_status is None else "http_error"
    return CallFailed(FailureRecord(kind, summary, http_status, hint=_HINTS.get(http_status)))


class Lease(NamedTuple):
    """The Lease in a reply of the API server. `body` and `spec` keep the fields that keysync does not know."""

    body: Mapping[str, object]
    spec: Mapping[str, object]
    version: str
    holder: str | None

    def number(self, name: str) -> int:
        """The field `name` of the spec; 0 if it has none."""
        value = self.spec.get(name)
        return value if isinstance(value, int) else 0


class LeaseClient:
    """The calls for one Lease, to the API server itself, never through a proxy. Needs a running loop.

    Each call ends within `seconds`, and raises CallFailed. The token in the folder `account` is read for each request,
    because Kubernetes renews it. If the API server refuses it, it is read and sent once more.
    """

    def __init__(self, url: str, namespace: str, name: str, account: Path, seconds: float) -> None:
        self._url = f"{url}/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._metadata = {"namespace": namespace, "name": name}
        self._account = account
        self._seconds = seconds
        self._read_token()
        tls = ssl.create_default_context(cadata=read_small(account / "ca.crt").decode())
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls), cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        )

    async def get(self) -> Lease | None:
        """The Lease; None if it does not exist."""
        return await self._call("GET", f"{self._url}/{self._metadata['name']}", None, quiet=_NOT_FOUND)

    async def write(self, before: Lease | None, spec: Mapping[str, object]) -> Lease | None:
        """Replaces the spec of `before`, or creates the Lease. None if another replica was faster (resourceVersion)."""
        if before is not None:
            url = f"{self._url}/{self._metadata['name']}"
            return await self._call("PUT", url, {**before.body, "spec": spec}, quiet=_CONFLICT)
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": self._metadata, "spec": spec}
        return await self._call("POST", self._url, body, quiet=_CONFLICT)

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    async def _call(self, method: str, url: str, body: object, *, quiet: int) -> Lease | None:
        """The Lease of the reply; None if its status is `quiet`."""
        try:
            async with asyncio.timeout(self._seconds):
                reply = await self._send(method, url, body)
                if reply.status == _UNAUTHORIZED:
                    reply = await self._send(method, url, body)
                parsed = await reply.json(content_type=None) if reply.ok else None
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise _failure(f"no answer from Kubernetes: {type(error).__name__}") from error
        if reply.status == quiet:
            return None
        if reply.status not in {200, 201}:
            raise _failure(f"Kubernetes answered {reply.status} {reply.reason}", reply.status)
        found = as_mapping(parsed) or {}
        metadata, spec = as_mapping(found.get("metadata")) or {}, as_mapping(found.get("spec")) or {}
        version, holder = metadata.get("resourceVersion"), spec.get("holderIdentity")
        is_this = found.get("kind") == "Lease" and self._metadata.items() <= metadata.items()
        if not is_this or not isinstance(version, str):
            raise _failure("the reply of Kubernetes is not about this Lease")
        return Lease(found, spec, version, holder if isinstance(holder, str) and holder else None)

    async def _send(self, method: str, url: str, body: object) -> aiohttp.ClientResponse:
        headers = {"Authorization": f"Bearer {self._read_token()}"}
        async with self._session.request(method, url, json=body, headers=headers, allow_redirects=False) as reply:
            await reply.read()
            return reply

    def _read_token(self) -> str:
        path = self._account / "token"
        try:
            if token := read_small(path).decode().strip():
                return token
            reason = f"{path} is empty"
        except (OSError, ValueError) as error:
            reason = str(error)
        raise _failure(f"the token for Kubernetes cannot be read: {reason}")


class LeaderElector:
    """Takes part in the election for `leadership` until `release` or `close`. `clock` returns monotonic seconds."""

    def __init__(
        self,
        client: LeaseClient,
        leadership: Leader,
        settings: LeaderElection,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.leadership = leadership
        self._client = client
        self._identity = leadership.identity
        self._lease_duration = settings.lease_duration.total_seconds()
        self._retry_period = settings.retry_period.total_seconds()
        self._clock = clock
        self._observed: Lease | None = None
        self._since = 0.0  # when this replica first saw that version of the Lease
        self._random = Random()  # noqa: S311  # nosec B311  # when to try again is no secret
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to try. Needs a running loop."""
        self._task = asyncio.create_task(self._run(), name="leader election")

    async def release(self) -> None:
        """Ends, and releases the Lease, so that a standby takes over at once. Call it after the last write."""
        await self._stop()
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                lease = await self._client.get()
                if lease is not None and lease.holder == self._identity:
                    await self._client.write(lease, {**lease.spec, "holderIdentity": None})
        except (CallFailed, TimeoutError):
            return  # the Lease expires

    async def close(self) -> None:
        """Ends, and lets the Lease expire unless it was released."""
        await self._stop()
        await self._client.close()

    async def try_acquire_or_renew(self) -> None:
        """Reads the Lease, and writes it if no other replica can still lead. Raises CallFailed."""
        lease = await self._client.get()
        if lease is not None:
            received = self._clock()
            if self._observed is None or self._observed.version != lease.version:
                self._since = received
            self._observed = lease
            self.leadership.read(received, lease.holder if lease.holder != self._identity else None)
        sent = self._clock()
        if lease is None or self._free_at() <= sent:
            written = await self._client.write(lease, self._spec(lease))
            if written is not None and written.holder == self._identity:
                self.leadership.renewed(sent)

    async def _stop(self) -> None:
        self.leadership.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            started = self._clock()
            try:
                await self.try_acquire_or_renew()
            except CallFailed as error:
                self.leadership.failed(error.record)
            except Exception as error:  # noqa: BLE001  # no error may end the election
                self.leadership.failed(FailureRecord("internal", f"unexpected {type(error).__name__}"))
            await asyncio.sleep(self._next_try(started) - self._clock())

    def _next_try(self, started: float) -> float:
        # A standby tries twice as often as a leader renews, and as soon as the Lease may be free.
        period = self._retry_period / (1 if self.leadership.leads() else 2)
        following = started + period * self._random.uniform(0.8, 1.0)  # replicas that start together drift apart
        free_at = self._free_at()
        return min(following, free_at) if free_at > self._clock() else following

    def _free_at(self) -> float:
        """From when on this replica may write: no other replica can lead any more."""
        lease = self._observed
        if lease is None or lease.holder in {None, self._identity}:
            return float("-inf")
        return self._since + max(self._lease_duration, lease.number("leaseDurationSeconds"))

    def _spec(self, before: Lease | None) -> dict[str, object]:
        """The spec with this replica as the holder. Its times are for people: no replica decides by a wall clock."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # MicroTime
        spec: dict[str, object] = {} if before is None else dict(before.spec)
        if before is None or before.holder != self._identity:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = 0 if before is None else before.number("leaseTransitions") + 1
        duration = int(self._lease_duration)
        return {**spec, "holderIdentity": self._identity, "leaseDurationSeconds": duration, "renewTime": now}


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
    leadership = Leader(settings, lease=f"{namespace}/{name}", identity=identity)
    return LeaderElector(client, leadership, settings)
