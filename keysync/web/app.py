"""The routes. Each reply is made from one snapshot; what takes long for thousands of accounts is made beside the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Final, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from keysync.report.status import Status, render
from keysync.report.status_metrics import StatusCollector
from keysync.web.page import Page
from keysync.web.query import Query
from keysync.web.security import add_headers, guard

_STATIC: Final = {
    "style.css": "text/css",
    "page.js": "text/javascript",
    "good.svg": "image/svg+xml",
    "warn.svg": "image/svg+xml",
    "bad.svg": "image/svg+xml",
    "wait.svg": "image/svg+xml",
}


class StatusSource(Protocol):
    """Gives snapshots. `status` is called on the event loop for each request, probes included: it must be quick."""

    def status(self) -> Status: ...


def make_web_app(source: StatusSource, registry: CollectorRegistry) -> web.Application:
    """The application that `open_server` serves: GET and HEAD of `/`, `/api/status`, `/healthz`, `/readyz`, `/metrics`.

    `/metrics` is what `registry` holds, and gauges of the snapshot (`StatusCollector`).
    """
    served = _Routes(source, registry)
    app = web.Application(middlewares=[guard], client_max_size=1024)
    app.on_response_prepare.append(add_headers)
    app.router.add_get("/", served.page)
    app.router.add_get("/api/status", served.status)
    app.router.add_get("/healthz", served.live)
    app.router.add_get("/readyz", served.ready)
    app.router.add_get("/metrics", served.metrics)
    app.router.add_get("/static/{name}", served.static)
    return app


class _Routes:
    def __init__(self, source: StatusSource, registry: CollectorRegistry) -> None:
        self._source = source
        self._registry = registry
        self._page = Page()
        folder = files("keysync.web") / "static"
        self._static = {name: (folder / name).read_bytes() for name in _STATIC}

    async def page(self, request: web.Request) -> web.Response:
        """The status page."""
        text = await asyncio.to_thread(self._page.render, self._source.status(), Query.parse(request.query))
        return _compressed(web.Response(text=text, content_type="text/html", charset="utf-8"))

    async def status(self, request: web.Request) -> web.Response:  # noqa: ARG002  # a handler's signature
        """The snapshot as JSON."""
        body = await asyncio.to_thread(render, self._source.status())
        return _compressed(web.Response(body=body, content_type="application/json", charset="utf-8"))

    async def live(self, request: web.Request) -> web.Response:  # noqa: ARG002
        """Whether the process works, else 503 with the reason."""
        status = self._source.status()
        return _probe(ok=status.live, body={"live": status.live, "reason": None if status.live else status.live_reason})

    async def ready(self, request: web.Request) -> web.Response:  # noqa: ARG002
        """Whether the first run is done or, of a standby, the Lease was read lately, else 503. A restart would not make an account less stale."""
        status = self._source.status()
        reason = status.ready_reason
        stale = list(status.stale_accounts)
        return _probe(ok=status.ready, body={"ready": status.ready, "reason": reason, "stale_accounts": stale})

    async def metrics(self, request: web.Request) -> web.Response:
        """The registry, and what the snapshot tells, in the format that the scraper prefers."""
        # What is no ASCII is no media type, and the library would fail on it.
        accept = request.headers.get("Accept", "")
        encode, content_type = choose_encoder(accept if accept.isascii() else "")
        # The snapshot is made here, not in the thread: what it is made from changes on the loop.
        body = await asyncio.to_thread(encode, _Scrape(self._registry, self._source.status()))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def static(self, request: web.Request) -> web.Response:
        """The page's own files, read once at the start."""
        name = request.match_info["name"]
        if name not in self._static:
            raise web.HTTPNotFound
        return web.Response(body=self._static[name], content_type=_STATIC[name], charset="utf-8")


class _Scrape(Collector):
    def __init__(self, registry: CollectorRegistry, status: Status) -> None:
        self._registry = registry
        self._status = status

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()
        yield from StatusCollector(self._status).collect()


def _probe(*, ok: bool, body: dict[str, Any]) -> web.Response:
    return web.json_response(body, status=200 if ok else 503)


def _compressed(response: web.Response) -> web.Response:
    # As the client's Accept-Encoding allows. What is compressed holds no secret that its size could betray.
    response.enable_compression()
    return response
