"""Where it listens, whom it answers there, and how it ends."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from keysync.errors import UsageError
from keysync.web.app import make_web_app
from keysync.web.security import is_loopback_name
from keysync.web.server import Bound, open_server

from .conftest import Client, Source


def app():
    return make_web_app(Source(), CollectorRegistry())


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "10.0.0.7", "localhost.evil.example", "[::2]:80", ""]
)
async def test_a_rebound_name_is_refused(client: Client, host: str):
    """On loopback, a page elsewhere whose name resolves to this machine reads nothing."""
    answer = await client.ask("/api/status", Host=host)
    assert answer.status == 403
    assert "secrets" not in answer.text
    assert "Content-Security-Policy" in answer.headers


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1234", "LOCALHOST.", "127.0.0.1", "127.1.2.3:80", "[::1]:8080", "a.localhost"]
)
async def test_the_machine_itself_is_served(client: Client, host: str):
    """By whatever name it has for itself."""
    assert (await client.ask("/healthz", Host=host)).status == 200


async def test_every_host_header_counts(client: Client):
    """A second name does not ride along, and a plain client that sends none is no browser."""
    port = client.url.rpartition(":")[2]

    async def status_of(*lines: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer.split()[1].decode()

    assert await status_of("GET /healthz HTTP/1.0") == "200"
    assert await status_of("GET /healthz HTTP/1.1", "Host: localhost", "Host: evil.example") in {"400", "403"}


@pytest.mark.parametrize("line", [b"GET / HTTP/9", b"\x16\x03\x01\x00", b"GET /" + b"a" * 20_000 + b" HTTP/1.1"])
async def test_what_is_no_http_is_refused_quietly(client: Client, caplog: pytest.LogCaptureFixture, line: bytes):
    """A stranger who knocks on the port cannot fill the log, and the next one is served."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(client.url.rpartition(":")[2]))
    writer.write(line + b"\r\n\r\n")
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert b" 400 " in answer
    assert caplog.records == []
    assert (await client.ask("/healthz")).status == 200


@pytest.mark.parametrize(
    "name", ["127.0.0.1.evil.example", "192.168.0.1", "localhostx", "[::1]x", "notlocalhost", ":80"]
)
def test_what_only_looks_like_loopback_is_not(name: str):
    """A name passes by what it means, not by how it begins."""
    assert not is_loopback_name(name)


async def test_elsewhere_any_name_is_served():
    """Whoever binds all addresses is behind a name that keysync cannot know."""
    async with open_server(app(), "0.0.0.0", 0) as bound:  # noqa: S104  # nosec B104  # what is tested
        assert await _status(f"http://127.0.0.1:{bound.port}", host="keysync.example") == 200


async def _status(url: str, host: str = "localhost") -> int:
    async with aiohttp.ClientSession() as session, session.get(url + "/healthz", headers={"Host": host}) as reply:
        return reply.status


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
async def test_ipv6_is_an_address_like_any_other():
    """`::1` serves it; `::` serves IPv4 as well."""
    async with open_server(app(), "::1", 0) as bound:
        assert bound.url == f"http://[::1]:{bound.port}"
        assert await _status(bound.url) == 200
    async with open_server(app(), "::", 0) as bound:
        assert await _status(f"http://127.0.0.1:{bound.port}") == 200
        assert await _status(f"http://[::1]:{bound.port}") == 200


async def test_localhost_is_every_address_of_it():
    """One port on all of them, and still for this machine only."""
    async with open_server(app(), "localhost", 0) as bound:
        assert await _status(f"http://127.0.0.1:{bound.port}") == 200
        assert await _status(f"http://127.0.0.1:{bound.port}", host="evil.example") == 403


async def test_a_taken_port_is_told():
    """The message names the address; nothing is left open."""
    async with open_server(app(), "127.0.0.1", 0) as bound:
        with pytest.raises(UsageError, match=rf"listen 127\.0\.0\.1:{bound.port}: Address already in use"):
            async with open_server(app(), "127.0.0.1", bound.port):
                pytest.fail("it was opened")


async def test_an_address_of_another_machine_is_told():
    """It is the configuration's fault, and so is its exit code."""
    with pytest.raises(UsageError, match=r"listen 192\.0\.2\.1:0: "):
        async with open_server(app(), "192.0.2.1", 0):
            pytest.fail("it was opened")


async def test_the_port_is_free_afterwards():
    """The same address can be had again at once, also where a client kept its connection open."""
    async with aiohttp.ClientSession() as session:
        async with open_server(app(), "127.0.0.1", 0) as bound, session.get(bound.url + "/healthz") as reply:
            assert reply.status == 200
        async with open_server(app(), "127.0.0.1", bound.port) as again:
            assert again == Bound("127.0.0.1", bound.port)
    with pytest.raises(aiohttp.ClientConnectorError):
        await _status(bound.url)
