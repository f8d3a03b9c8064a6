"""Azure's hosts on loopback, each with recorded replies; clients reach them by a proxy's CONNECT."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
from aiohttp import web

Answer = Callable[["ReceivedRequest"], web.Response]


@dataclass(frozen=True)
class ReceivedRequest:
    """One request: its host, method and path, its form or JSON text, and whether it has a token."""

    host: str
    method: str
    path: str
    query: dict[str, str]
    body: str
    has_token: bool


@dataclass
class Recorded:
    """One recorded reply, which is given `times` times (by default every time)."""

    name: str
    source: str
    kind: str
    request: dict[str, Any]
    response: dict[str, Any]
    times: int | None = None
    given: int = 0

    @classmethod
    def read(cls, path: Path) -> Recorded:
        """The reply in a file."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    @property
    def spent(self) -> bool:
        """Whether it was given `times` times."""
        return self.times is not None and self.given >= self.times

    def reply(self, asked: ReceivedRequest) -> web.Response:
        """The reply once more; a reply about a secret names the requested secret."""
        self.given += 1
        body = self.response["body"]
        text = body if isinstance(body, str) else json.dumps(body)
        if asked.path.startswith("/secrets/"):
            name = asked.path.split("/")[2]
            text = re.sub(r"(\.net/secrets/)[^/\"]+(?=/)", rf"\g<1>{name}", text)
        dropped = {"content-length", "transfer-encoding", "connection", "content-encoding"}
        headers = {name: value for name, value in self.response["headers"].items() if name.lower() not in dropped}
        status = int(self.response["status"])
        return web.Response(status=status, headers=headers, body=None if status == 204 else text.encode())


def as_json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A reply with a JSON body."""
    return web.Response(
        status=status, body=json.dumps(body).encode(), headers={"Content-Type": "application/json", **(headers or {})}
    )


@dataclass
class Replay:
    """The addresses of the hosts, and all requests."""

    proxy: str
    identity: str
    bundle: Path
    asked: list[ReceivedRequest] = field(default_factory=list)


@asynccontextmanager
async def replaying(answer: Answer, folder: Path, hosts: Iterable[str]) -> AsyncIterator[Replay]:
    """Serves `answer` as each of `hosts` behind a proxy, and as a managed-identity endpoint, until the block ends."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*hosts).configure_cert(context)
    bundle = folder / "replay-ca.pem"
    authority.cert_pem.write_to_path(bundle)
    async with AsyncExitStack() as stack:
        asked: list[ReceivedRequest] = []

        async def handle(request: web.BaseRequest) -> web.Response:
            received = ReceivedRequest(
                request.host.partition(":")[0],
                request.method,
                request.rel_url.path,
                dict(request.rel_url.query),
                (await request.read()).decode(),
                "Authorization" in request.headers,
            )
            asked.append(received)
            return answer(received)

        runner = web.ServerRunner(web.Server(handle, access_log=None), shutdown_timeout=0.5)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        azure = await _site(runner, context)
        identity = await _site(runner, None)
        proxy = await asyncio.start_server(lambda reader, writer: _tunnel(reader, writer, azure), "127.0.0.1", 0)
        stack.push_async_callback(_closed, proxy)
        port = proxy.sockets[0].getsockname()[1]
        yield Replay(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{identity}", bundle, asked)


async def _site(runner: web.ServerRunner, context: ssl.SSLContext | None) -> int:
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port: int = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    return port


async def _closed(server: asyncio.Server) -> None:
    server.close()
    await server.wait_closed()


async def _tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Connects one CONNECT, whatever its host, to `port` on loopback."""
    with suppress(OSError, asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        onward, back = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(_pump(reader, back), _pump(onward, writer))
        finally:
            back.close()
    writer.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
    sink.close()
