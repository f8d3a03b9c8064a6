"""An HTTP server on loopback that stores the requests and gives the configured answers."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
from aiohttp import web


@dataclass(frozen=True)
class Received:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass
class Receiver:
    """`answers` are given in turn: a status, a status with headers, ``hang`` or ``break``; afterwards status 200."""

    base: str = ""
    answers: list[int | tuple[int, dict[str, str]] | str] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    on_request: Callable[[], None] = lambda: None
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Stores the request, then answers."""
        body = await request.read()
        self.received.append(Received(request.method, request.path, dict(request.headers), body))
        answer = self.answers.pop(0) if self.answers else 200
        self.on_request()
        if answer == "hang":
            await self.let_go.wait()
        if answer == "break" and request.transport is not None:
            request.transport.abort()
        status, headers = answer if isinstance(answer, tuple) else (answer if isinstance(answer, int) else 200, {})
        return web.Response(status=status, headers=headers, text="a body that no output may repeat")


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Serves in the running event loop until the block ends."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        receiver.base = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
        yield receiver
    finally:
        receiver.let_go.set()
        await runner.cleanup()


def loopback_tls(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context for `localhost`, and the CA file to trust it."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    bundle = folder / "receiver-ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    return context, bundle


@contextmanager
def receiving_in_a_thread(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Serves from its own thread, for callers that block theirs."""
    box: dict[str, Any] = {}
    started = threading.Event()

    async def serve() -> None:
        try:
            async with receiving(tls) as receiver:
                box.update(receiver=receiver, loop=asyncio.get_running_loop(), stop=asyncio.Event())
                started.set()
                await box["stop"].wait()
        finally:
            started.set()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="receiver")
    thread.start()
    try:
        assert started.wait(20)
        yield box["receiver"]
    finally:
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join(20)
        assert not thread.is_alive()
