"""The probe that a container's health check is, against real servers."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from keysync.web.healthcheck import why_unwell
from tests.support.statuses import varied

from .conftest import Client, Source


async def asked(port: int, host: str = "127.0.0.1", seconds: float = 5.0) -> str | None:
    """What the probe says, while the server goes on in this loop."""
    return await asyncio.to_thread(why_unwell, host, port, seconds=seconds)


def port_of(client: Client) -> int:
    return int(client.url.rpartition(":")[2])


@asynccontextmanager
async def answering(reply: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    """The port of a server that has read a request when `reply` is called."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reply(writer)
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def saying(answer: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return reply


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])  # noqa: S104  # nosec B104  # what it may listen on
async def test_a_daemon_that_lives_is_well(client: Client, host: str) -> None:
    """Where it listens on every address, it is asked on this machine's own."""
    assert await asked(port_of(client), host) is None


async def test_a_daemon_that_hangs_says_why(client: Client, source: Source) -> None:
    """Its own reason is what the container's health says."""
    source.current = dataclasses.replace(varied(), live=False, live_reason="no run has begun for an hour")
    assert await asked(port_of(client)) == "no run has begun for an hour"


async def test_a_daemon_that_is_not_there_is_not_well() -> None:
    """Nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert await asked(port) == "no answer: Connection refused"


async def test_no_answer_is_waited_for_forever() -> None:
    """A process that is stopped still takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert await asked(silent.getsockname()[1], seconds=0.05) == "no answer within 0.05 s"


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
async def test_somebody_else_on_the_port_is_not_taken_for_keysync(answer: bytes) -> None:
    """A 200 alone says nothing."""
    async with answering(saying(answer)) as port:
        assert (await asked(port) or "").startswith("what answers there is no keysync")


async def test_a_byte_now_and_then_is_no_answer() -> None:
    """Each step of it is in time, and all of them together would go on for ever."""
    over, ended = asyncio.Event(), asyncio.Event()

    async def drip(writer: asyncio.StreamWriter) -> None:
        while not over.is_set():
            writer.write(b"x")
            await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with answering(drip) as port:
        told = await asked(port, seconds=0.1)
        over.set()
        await ended.wait()
    assert told == "no answer within 0.1 s"


async def test_what_answers_commands_no_terminal() -> None:
    """It may be anybody."""
    body = b'{"live": false, "reason": "\\u001b]0;owned\\u0007\\u009b2J"}'
    async with answering(saying(b"HTTP/1.1 503 No\r\n\r\n" + body)) as port:
        assert await asked(port) == "\ufffd]0;owned\ufffd\ufffd2J"


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n"])
async def test_what_is_no_http_is_told_apart(answer: bytes) -> None:
    """No answer, and one that is none of HTTP's, raise nothing."""
    async with answering(saying(answer)) as port:
        assert (await asked(port) or "").startswith("no answer: ")


async def test_no_proxy_is_asked(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy for the way to Azure knows nothing of this machine's loopback."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert await asked(port_of(client)) is None
