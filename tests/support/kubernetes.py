"""The part of a Kubernetes API server that Leases need, on loopback.

It has resource versions, conflicts, and faults for each replica. Each replica has its own kubeconfig with its name in
the server's path, so that a fault can affect one replica only.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from aiohttp import web

Fault = Literal["hang", "lose_reply", "forbidden", "html"]
"""``hang``: no effect and no reply. ``lose_reply``: an effect and no reply. The others are replies without effect."""

NAMESPACE = "render"
_PATH = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
_PATIENCE = 20.0
_TURNS = 5  # of the loop, in which a cut connection is closed


class Kubernetes:
    """The server's state; any thread may use it."""

    def __init__(self) -> None:
        self.leases: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, Fault] = {}
        self.writes: list[tuple[float, str, str, str | None]] = []
        """Time, replica, lease and holder of each request that had an effect."""
        self.tokens: set[str] = set()
        """The authorization headers of the requests."""
        self.accepted: str | None = None
        """The only accepted authorization, others get 401; None accepts any."""
        self.requests = 0
        self.url = ""
        self._version = 0
        self._let_go = asyncio.Event()
        self._connections: set[asyncio.Transport] = set()

    def kubeconfig(self, folder: Path, replica: str) -> Path:
        """Writes the file with which `replica` connects to the server."""
        path = folder / f"kubeconfig-{replica}"
        context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": f"{self.url}/{replica}"}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [context],
        }
        path.write_text(json.dumps(document))
        return path

    def holder(self, lease: str = "keysync") -> str | None:
        """The holder of the lease."""
        lease_body = self.leases.get(lease)
        return None if lease_body is None else lease_body["spec"].get("holderIdentity")

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application()
        for path in ("/{replica}" + _PATH, _PATH):
            app.router.add_post(path, self._create)
            app.router.add_get(path + "/{name}", self._read)
            app.router.add_put(path + "/{name}", self._replace)
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
        lease_body = self.leases.get(request.match_info["name"])
        return await self._answer(request, lease_body if lease_body is not None else 404)

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        return await self._write(request, body["metadata"]["name"], body, None)

    async def _replace(self, request: web.Request) -> web.Response:
        body = await request.json()
        return await self._write(request, request.match_info["name"], body, body["metadata"]["resourceVersion"])

    async def _write(self, request: web.Request, name: str, body: dict[str, Any], before: str | None) -> web.Response:
        if self._is_refused(request) or self.faults.get(_replica(request)) in {"hang", "forbidden", "html"}:
            return await self._answer(request, 500)
        there = self.leases.get(name)
        if (None if there is None else there["metadata"]["resourceVersion"]) != before:
            return await self._answer(request, 409)
        self._version += 1
        metadata = {**body["metadata"], "namespace": NAMESPACE, "resourceVersion": str(self._version)}
        self.leases[name] = {**body, "metadata": metadata}
        holder = body["spec"].get("holderIdentity")
        self.writes.append((time.monotonic(), _replica(request), name, holder))
        return await self._answer(request, self.leases[name])

    def _is_refused(self, request: web.Request) -> bool:
        return self.accepted is not None and request.headers.get("Authorization") != self.accepted

    async def _answer(self, request: web.Request, answer: dict[str, Any] | int) -> web.Response:
        if request.transport is not None:
            self._connections.add(request.transport)
        self.tokens |= set(request.headers.getall("Authorization", []))
        fault = self.faults.get(_replica(request))
        self.requests += 1
        if request.match_info["namespace"] != NAMESPACE:
            answer = 403
        if fault == "hang" or (fault == "lose_reply" and request.method != "GET"):
            await self._let_go.wait()
        if fault == "html":
            return web.Response(status=502, text="<html>bad gateway</html>", content_type="text/html")
        if fault == "forbidden":
            answer = 403
        if self._is_refused(request):
            answer = 401
        if isinstance(answer, int):
            return web.json_response({"kind": "Status", "code": answer, "reason": "because"}, status=answer)
        return web.json_response({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **answer})


def _replica(request: web.Request) -> str:
    return request.match_info.get("replica", "")


@contextmanager
def running_kubernetes(tls: ssl.SSLContext | None = None) -> Iterator[Kubernetes]:
    """Serves until the block ends, in its own thread; with TLS if `tls` is given."""
    box: dict[str, Any] = {}
    started = threading.Event()

    async def serve() -> None:
        box["loop"], box["stop"] = asyncio.get_running_loop(), asyncio.Event()
        kubernetes = Kubernetes()
        runner = web.AppRunner(kubernetes.app(), shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
            await site.start()
            kubernetes.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}"
            box["kubernetes"] = kubernetes
            started.set()
            await box["stop"].wait()
        finally:
            kubernetes.let_go()
            await runner.cleanup()
            await kubernetes.hang_up()
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
