"""The real server on loopback, over a snapshot that the test sets, and a plain client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Gauge

from keysync.report.status import Status
from keysync.web.app import make_web_app
from keysync.web.server import open_server
from tests.support.statuses import varied


@dataclass
class Source:
    """Gives the snapshot that it was handed, or raises what it was handed."""

    current: Status | Exception = field(default_factory=varied)
    made: Callable[[], None] = lambda: None

    def status(self) -> Status:
        self.made()
        if isinstance(self.current, Exception):
            raise self.current
        return self.current


@dataclass
class Answer:
    """A reply, read whole."""

    status: int
    text: str
    headers: dict[str, str]


@dataclass
class Client:
    """Asks a running server."""

    url: str
    session: aiohttp.ClientSession

    async def ask(self, path: str = "/", method: str = "GET", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(method, self.url + path, headers=named, allow_redirects=False) as reply:
            return Answer(reply.status, await reply.text(), dict(reply.headers))


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Gauge("keysync_something", "There is always something to tell.", registry=registry)
    return registry


@pytest.fixture
async def client(source: Source, registry: CollectorRegistry) -> AsyncIterator[Client]:
    async with open_server(make_web_app(source, registry), "127.0.0.1", 0) as bound, aiohttp.ClientSession() as session:
        yield Client(bound.url, session)
