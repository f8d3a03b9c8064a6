"""The part of a Kubernetes API server that Leases need, on loopback over TLS.

It has resource versions, conflicts, and faults for each replica. The token of a replica is its name, so that a fault can
affect one replica only.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

from aiohttp import web

from tests.support.receiver import loopback_tls

Fault = Literal["hang", "lose_reply", "forbidden", "html", "no_json", "another"]
"""``hang``: no effect and no reply. ``lose_reply``: an effect and no reply. The others are replies without effect.
``another`` is a reply about another Lease."""

NAMESPACE = "render"
_PATH = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
_PATIENCE = 20.0
_TURNS = 5  # of the loop, in which a cut connection is closed


class Kubernetes:
    """The server's state; any thread may use it."""

    def __init__(self, folder: Path) -> None:
        self.leases: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, Fault] = {}
        self.writes: list[tuple[float, str, str, str | None]] = []
        """Time, replica, lease and holder of each request that had an effect."""
        self.tokens: set[str] = set()
        """The authorization headers of the requests."""
        self.accepted: str | None = None
        """The only accepted authorization, others get 401; None accepts any."""
        self.requests: list[str] = []
        """The methods of the requests."""
        self.namespaces = {NAMESPACE}
        self.on_write: Callable[[], object] = lambda: None
        self.on_refusal: Callable[[], object] = lambda: None
        """Called before a reply to a write, and before a 401."""
        self.running = asyncio.Event()
        """Clear it to pause the server: it answers later what it receives until then."""
        self.running.set()
        self.port = 0
        self._folder = folder
        self._version = 0
        self._let_go = asyncio.Event()
        self._connections: set[asyncio.Transport] = set()
        self.tls, self._authority = loopback_tls(folder)

    @property
    def environ(self) -> dict[str, str]:
        """The variables with which Kubernetes names its API server to a pod."""
        return {"KUBERNETES_SERVICE_HOST": "localhost", "KUBERNETES_SERVICE_PORT": str(self.port)}

    def service_account(self, replica: str) -> Path:
        """The folder that Kubernetes mounts into the pod `replica`."""
        folder = self._folder / f"account-{replica}"
        folder.mkdir()
        (folder / "token").write_text(f"{replica}\n")
        (folder / "namespace").write_text(NAMESPACE)
        (folder / "ca.crt").write_bytes(self._authority.read_bytes())
        return folder

    def holder(self, lease: str = "keysync") -> str | None:
        """The holder of the lease."""
        lease_body = self.leases.get(lease)
        return None if lease_body is None else lease_body["spec"].get("holderIdentity")

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application()
        app.router.add_post(_PATH, self._create)
        app.router.add_get(_PATH + "/{name}", self._read)
        app.router.add_put(_PATH + "/{name}", self._replace)
        return app

    def let_go(self) -> None:
        """Ends the hanging requests."""
        self._let_go.set()

    async def hang_up(self) -> None:
        """Closes the open connections abruptly: over TLS a normal close would wait for the peer."""
        for connection in self._connections:
            connection.abort()
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def _read(self, request: web.Request) -> web.Response:
        await self.running.wait()
        lease_body = self.leases.get(request.match_info["name"])
        return await self._answer(request, lease_body if lease_body is not None else 404)

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        await self.running.wait()
        return await self._write(request, body["metadata"]["name"], body, None)

    async def _replace(self, request: web.Request) -> web.Response:
        body = await request.json()
        await self.running.wait()
        return await self._write(request, request.match_info["name"], body, body["metadata"]["resourceVersion"])

    async def _write(self, request: web.Request, name: str, body: dict[str, Any], before: str | None) -> web.Response:
        if self._is_refused(request) or self.faults.get(_replica(request), "lose_reply") != "lose_reply":
            return await self._answer(request, 500)
        there = self.leases.get(name)
        if (None if there is None else there["metadata"]["resourceVersion"]) != before:
            return await self._answer(request, 409)
        self._version += 1
        metadata = {**body["metadata"], "namespace": NAMESPACE, "resourceVersion": str(self._version)}
        self.leases[name] = {**body, "metadata": metadata}
        holder = body["spec"].get("holderIdentity")
        self.on_write()
        self.writes.append((time.monotonic(), _replica(request), name, holder))
        return await self._answer(request, self.leases[name])

    def _is_refused(self, request: web.Request) -> bool:
        return self.accepted is not None and request.headers.get("Authorization") != self.accepted

    async def _answer(self, request: web.Request, answer: dict[str, Any] | int) -> web.Response:
        if request.transport is not None:
            self._connections.add(request.transport)
        self.tokens |= set(request.headers.getall("Authorization", []))
        fault = self.faults.get(_replica(request))
        self.requests.append(request.method)
        if request.match_info["namespace"] not in self.namespaces:
            answer = 404
        if fault == "hang" or (fault == "lose_reply" and request.method != "GET"):
            await self._let_go.wait()
        if fault == "html":
            return web.Response(status=502, text="<html>bad gateway</html>", content_type="text/html")
        if fault == "no_json":
            return web.Response(text="no JSON", content_type="application/json")
        if fault == "another":
            answer = {"metadata": {"name": "another", "namespace": NAMESPACE, "resourceVersion": "1"}, "spec": {}}
        if fault == "forbidden":
            answer = 403
        if self._is_refused(request):
            self.on_refusal()
            answer = 401
        if isinstance(answer, int):
            return web.json_response({"kind": "Status", "code": answer, "reason": "because"}, status=answer)
        return web.json_response({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **answer})


def _replica(request: web.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


@asynccontextmanager
async def serving_kubernetes(folder: Path) -> AsyncIterator[Kubernetes]:
    """Serves in the running event loop until the block ends. Its certificates are in `folder`."""
    kubernetes = Kubernetes(folder)
    runner = web.AppRunner(kubernetes.app(), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=kubernetes.tls).start()
        kubernetes.port = runner.addresses[0][1]
        yield kubernetes
    finally:
        kubernetes.let_go()
        kubernetes.running.set()
        await runner.cleanup()
        await kubernetes.hang_up()


@contextmanager
def running_kubernetes(folder: Path) -> Iterator[Kubernetes]:
    """Serves until the block ends, in its own thread."""
    box: dict[str, Any] = {}
    started = threading.Event()

    async def serve() -> None:
        try:
            async with serving_kubernetes(folder) as kubernetes:
                box.update(kubernetes=kubernetes, loop=asyncio.get_running_loop(), stop=asyncio.Event())
                started.set()
                await box["stop"].wait()
        finally:
            started.set()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="Kubernetes")
    thread.start()
    try:
        assert started.wait(_PATIENCE)
        yield box["kubernetes"]
    finally:
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join(_PATIENCE)
        assert not thread.is_alive()
