"""A forward proxy on loopback that supports CONNECT, and misbehaves on request."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

ANSWERS: Final = {
    "407": b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n',
    "502": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad",
    "302": b"HTTP/1.1 302 Found\r\nLocation: https://login.example/?next=x\r\nContent-Length: 0\r\n\r\n",
    "garbage": b"\x00\x01\x02 what is this\r\n\r\n",
}


@dataclass
class ForwardProxy:
    """`answer` is a key of ANSWERS or ``tunnel``, which connects each CONNECT to `upstream`, whatever its host."""

    answer: str = "tunnel"
    upstream: tuple[str, int] | None = None
    port: int = 0
    connects: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one connection."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
            self.connects.append(head[0])
            self.authorizations.append(headers.get("proxy-authorization"))
            if self.answer != "tunnel" or self.upstream is None:
                writer.write(ANSWERS[self.answer])
                await writer.drain()
                return
            upstream_reader, upstream_writer = await asyncio.open_connection(*self.upstream)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_copy(reader, upstream_writer), _copy(upstream_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has disconnected
        finally:
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def proxying(answer: str, upstream: tuple[str, int] | None = None) -> AsyncIterator[ForwardProxy]:
    """Serves in the running event loop until the block ends."""
    proxy = ForwardProxy(answer, upstream)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    async with server:
        yield proxy


@contextmanager
def proxying_in_a_thread(answer: str) -> Iterator[ForwardProxy]:
    """Serves from its own thread, for callers that block theirs."""
    box: dict[str, Any] = {}
    started = threading.Event()

    async def serve() -> None:
        try:
            async with proxying(answer) as proxy:
                box.update(proxy=proxy, loop=asyncio.get_running_loop(), stop=asyncio.Event())
                started.set()
                await box["stop"].wait()
        finally:
            started.set()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="proxy")
    thread.start()
    try:
        assert started.wait(20)
        yield box["proxy"]
    finally:
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join(20)
        assert not thread.is_alive()
