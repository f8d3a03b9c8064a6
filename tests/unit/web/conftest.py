"""The real server on loopback with a snapshot that the test sets, and a plain client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Gauge

from keysync.report.status import Status
from keysync.web.app import make_web_app
from keysync.web.server import open_server
from tests.support.snapshots import varied


@dataclass
class Source:
    """Returns or raises `current`, after a call of `on_status`."""

    current: Status | Exception = field(default_factory=varied)
    on_status: Callable[[], None] = lambda: None

    def status(self) -> Status:
        self.on_status()
        if isinstance(self.current, Exception):
            raise self.current
        return self.current


@dataclass
class Reply:
    """A reply that was read completely."""

    status: int
    text: str
    headers: dict[str, str]


@dataclass
class Client:
    """Sends requests to the running server."""

    url: str
    session: aiohttp.ClientSession

    async def request(self, path: str = "/", method: str = "GET", **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(method, self.url + path, headers=named, allow_redirects=False) as response:
            return Reply(response.status, await response.text(), dict(response.headers))


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Gauge("keysync_something", "A metric of the registry.", registry=registry)
    return registry


@pytest.fixture
async def client(source: Source, registry: CollectorRegistry) -> AsyncIterator[Client]:
    async with (
        open_server(make_web_app(source.status, registry), "127.0.0.1", 0) as bound,
        aiohttp.ClientSession() as session,
    ):
        yield Client(bound.url, session)
