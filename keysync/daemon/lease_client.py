"""The calls for one Lease of the pod's Kubernetes cluster (coordination.k8s.io/v1)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp

from keysync.failures import CallFailed, FailureKind, FailureRecord
from keysync.files import read_small
from keysync.json_values import as_mapping

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # Kubernetes mounts it into each pod

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
        self.lease = f"{namespace}/{name}"
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
        return await self._call("GET", None, quiet=_NOT_FOUND)

    async def write(self, before: Lease | None, spec: Mapping[str, object]) -> Lease | None:
        """Replaces the spec of `before`, or creates the Lease. None if another replica was faster (resourceVersion)."""
        if before is not None:
            return await self._call("PUT", {**before.body, "spec": spec}, quiet=_CONFLICT)
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": self._metadata, "spec": spec}
        return await self._call("POST", body, quiet=_CONFLICT)

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    async def _call(self, method: str, body: object, *, quiet: int) -> Lease | None:
        """The Lease of the reply; None if its status is `quiet`."""
        try:
            async with asyncio.timeout(self._seconds):
                reply = await self._send(method, body)
                if reply.status == _UNAUTHORIZED:
                    reply = await self._send(method, body)
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

    async def _send(self, method: str, body: object) -> aiohttp.ClientResponse:
        url = self._url if method == "POST" else f"{self._url}/{self._metadata['name']}"
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
