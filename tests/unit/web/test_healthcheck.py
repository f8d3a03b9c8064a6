"""The health check of a container, against real servers."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from keysync.web.healthcheck import unhealthy_reason
from tests.support.snapshots import varied

from .conftest import Client, Source


async def check(port: int, host: str = "127.0.0.1", seconds: float = 5.0) -> str | None:
    """The result of the check, while the server runs on this loop."""
    return await asyncio.to_thread(unhealthy_reason, host, port, seconds=seconds)


def port_of(client: Client) -> int:
    return int(client.url.rpartition(":")[2])


@asynccontextmanager
async def server_with(reply: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    """The port of a server that calls `reply` once it has read a request."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reply(writer)
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def sends(answer: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return reply


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])  # noqa: S104  # nosec B104  # an address that it may listen on
async def test_a_live_daemon_is_healthy(client: Client, host: str) -> None:
    """If it listens on all addresses, the check uses the loopback address."""
    assert await check(port_of(client), host) is None


async def test_a_hanging_daemon_gives_its_reason(client: Client, source: Source) -> None:
    """The container's health status shows this reason."""
    source.current = dataclasses.replace(varied(), live=False, live_reason="no run has begun for an hour")
    assert await check(port_of(client)) == "no run has begun for an hour"


async def test_a_stopped_daemon_is_unhealthy() -> None:
    """No process listens on the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert await check(port) == "no answer: Connection refused"


async def test_a_daemon_that_does_not_answer_is_unhealthy() -> None:
    """The kernel still accepts connections for a suspended process."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert await check(silent.getsockname()[1], seconds=0.05) == "no answer within 0.05 s"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\ncut off",
        b'HTTP/1.1 200 OK\r\n\r\n{"live": "yes"}',
        b"HTTP/1.1 200 OK\r\n\r\n[true]",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_another_program_on_the_port_is_recognised(answer: bytes) -> None:
    """The status 200 alone proves nothing."""
    async with server_with(sends(answer)) as port:
        assert (await check(port) or "").startswith("another program than keysync answers there")


async def test_a_slow_answer_is_a_timeout() -> None:
    """Each byte arrives in time, but the answer never ends."""
    over, ended = asyncio.Event(), asyncio.Event()

    async def drip(writer: asyncio.StreamWriter) -> None:
        while not over.is_set():
            writer.write(b"x")
            await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with server_with(drip) as port:
        reason = await check(port, seconds=0.1)
        over.set()
        await ended.wait()
    assert reason == "no answer within 0.1 s"


async def test_control_codes_are_removed_from_the_reason() -> None:
    """The answer may come from another program."""
    body = b'{"live": false, "reason": "\\u001b]0;owned\\u0007\\u009b2J"}'
    async with server_with(sends(b"HTTP/1.1 503 No\r\n\r\n" + body)) as port:
        assert await check(port) == "\ufffd]0;owned\ufffd\ufffd2J"


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n"])
async def test_an_answer_that_is_not_http_is_unhealthy(answer: bytes) -> None:
    """An empty answer and another protocol raise nothing."""
    async with server_with(sends(answer)) as port:
        assert (await check(port) or "").startswith("no answer: ")


async def test_no_proxy_is_used(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy for Azure cannot reach the loopback of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert await check(port_of(client)) is None
