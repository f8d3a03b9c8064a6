"""The routes. Each reply comes from one snapshot. Rendering thousands of accounts is slow, so it runs in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.resources import files
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from keysync.report.metrics import StatusCollector
from keysync.report.status import Status, render
from keysync.web.page import render_page
from keysync.web.query import Query
from keysync.web.security import add_headers, guard

_STATIC: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def make_web_app(snapshot: Callable[[], Status], registry: CollectorRegistry) -> web.Application:
    """The application for `open_server`: GET and HEAD of `/`, `/api/status`, `/healthz`, `/readyz`, `/metrics`.

    `snapshot` runs on the event loop for each request, also of probes, so it must be fast. `/metrics` has the metrics of
    `registry`, and gauges of the snapshot.
    """
    routes = _Routes(snapshot, registry)
    app = web.Application(middlewares=[guard], client_max_size=1024)
    app.on_response_prepare.append(add_headers)
    app.router.add_get("/", routes.page)
    app.router.add_get("/api/status", routes.status)
    app.router.add_get("/healthz", routes.live)
    app.router.add_get("/readyz", routes.ready)
    app.router.add_get("/metrics", routes.metrics)
    app.router.add_get("/static/{name}", routes.static)
    return app


class _Routes:
    def __init__(self, snapshot: Callable[[], Status], registry: CollectorRegistry) -> None:
        self._snapshot = snapshot
        self._registry = registry
        # Read once, so that a request for a file reads no disk and cannot leave the folder.
        self._static = {file.name: file.read_bytes() for file in (files("keysync.web") / "static").iterdir()}

    async def page(self, request: web.Request) -> web.Response:
        """The status page."""
        text = await asyncio.to_thread(render_page, self._snapshot(), Query.parse(request.query))
        return _compressed(web.Response(text=text, content_type="text/html", charset="utf-8"))

    async def status(self, request: web.Request) -> web.Response:  # noqa: ARG002  # aiohttp's signature of a handler
        """The snapshot as JSON."""
        body = await asyncio.to_thread(render, self._snapshot())
        return _compressed(web.Response(body=body, content_type="application/json", charset="utf-8"))

    async def live(self, request: web.Request) -> web.Response:  # noqa: ARG002  # as above
        """200 if the process works, else 503 with the reason."""
        status = self._snapshot()
        body = {"live": status.live, "reason": None if status.live else status.live_reason}
        return web.json_response(body, status=200 if status.live else 503)

    async def ready(self, request: web.Request) -> web.Response:  # noqa: ARG002  # as above
        """200 once the first run is done, or for a standby while it reads the Lease; else 503.

        Stale accounts do not change the status: a restart would not help them.
        """
        status = self._snapshot()
        body = {"ready": status.ready, "reason": status.ready_reason, "stale_accounts": status.stale_accounts}
        return web.json_response(body, status=200 if status.ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """The metrics of the registry and of the snapshot, in the format that the scraper prefers."""
        # prometheus_client fails on non-ASCII text, which no media type contains.
        accept = request.headers.get("Accept", "")
        encode, content_type = choose_encoder(accept if accept.isascii() else "")
        body = await asyncio.to_thread(encode, StatusCollector(self._snapshot(), self._registry))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def static(self, request: web.Request) -> web.Response:
        """A static file of the page."""
        name = request.match_info["name"]
        if name not in self._static:
            raise web.HTTPNotFound
        content_type = _STATIC[name[name.rindex(".") :]]
        return web.Response(body=self._static[name], content_type=content_type, charset="utf-8")


def _compressed(response: web.Response) -> web.Response:
    # If the client's Accept-Encoding allows it. The content has no secret that its compressed size could reveal (BREACH).
    response.enable_compression()
    return response
