"""Listening, allowed Host headers, and closing."""

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
    return make_web_app(Source().status, CollectorRegistry())


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "10.0.0.7", "localhost.evil.example", "[::2]:80", ""]
)
async def test_other_host_names_are_refused_on_loopback(client: Client, host: str):
    """DNS rebinding: a site whose name resolves to this machine cannot read anything."""
    reply = await client.request("/api/status", Host=host)
    assert reply.status == 403
    assert "secrets" not in reply.text
    assert "Content-Security-Policy" in reply.headers


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1234", "LOCALHOST.", "127.0.0.1", "127.1.2.3:80", "[::1]:8080", "a.localhost"]
)
async def test_loopback_host_names_are_served(client: Client, host: str):
    """All names and addresses of this machine."""
    assert (await client.request("/healthz", Host=host)).status == 200


async def test_every_host_header_is_checked(client: Client):
    """A second Host header is checked too. A request without one does not come from a browser."""
    port = client.url.rpartition(":")[2]

    async def status_of(*lines: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        reply = await reader.read()
        writer.close()
        await writer.wait_closed()
        return reply.split()[1].decode()

    assert await status_of("GET /healthz HTTP/1.0") == "200"
    assert await status_of("GET /healthz HTTP/1.1", "Host: localhost", "Host: evil.example") in {"400", "403"}


@pytest.mark.parametrize("line", [b"GET / HTTP/9", b"\x16\x03\x01\x00", b"GET /" + b"a" * 20_000 + b" HTTP/1.1"])
async def test_malformed_requests_are_not_logged(client: Client, caplog: pytest.LogCaptureFixture, line: bytes):
    """They cannot fill the log, and the next request is served."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(client.url.rpartition(":")[2]))
    writer.write(line + b"\r\n\r\n")
    reply = await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert b" 400 " in reply
    assert caplog.records == []
    assert (await client.request("/healthz")).status == 200


@pytest.mark.parametrize(
    "name", ["127.0.0.1.evil.example", "192.168.0.1", "localhostx", "[::1]x", "notlocalhost", ":80"]
)
def test_names_that_look_like_loopback_are_refused(name: str):
    """The whole name is compared, not its beginning."""
    assert not is_loopback_name(name)


async def test_any_host_name_is_served_on_other_addresses():
    """keysync cannot know the names of a server that listens on all addresses."""
    async with open_server(app(), "0.0.0.0", 0) as bound:  # noqa: S104  # nosec B104  # the address under test
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
async def test_ipv6_addresses_are_served():
    """`::` serves IPv4 as well."""
    async with open_server(app(), "::1", 0) as bound:
        assert bound.url == f"http://[::1]:{bound.port}"
        assert await _status(bound.url) == 200
    async with open_server(app(), "::", 0) as bound:
        assert await _status(f"http://127.0.0.1:{bound.port}") == 200
        assert await _status(f"http://[::1]:{bound.port}") == 200


async def test_localhost_listens_on_every_address():
    """On the same port, and for this machine only."""
    async with open_server(app(), "localhost", 0) as bound:
        assert await _status(f"http://127.0.0.1:{bound.port}") == 200
        assert await _status(f"http://127.0.0.1:{bound.port}", host="evil.example") == 403


async def test_a_used_port_is_a_usage_error():
    """The message names the address, and no listener stays open."""
    async with open_server(app(), "127.0.0.1", 0) as bound:
        with pytest.raises(UsageError, match=rf"listen 127\.0\.0\.1:{bound.port}: Address already in use"):
            async with open_server(app(), "127.0.0.1", bound.port):
                pytest.fail("it was opened")


async def test_an_address_of_another_machine_is_a_usage_error():
    """Its exit code is that of a configuration error."""
    with pytest.raises(UsageError, match=r"listen 192\.0\.2\.1:0: "):
        async with open_server(app(), "192.0.2.1", 0):
            pytest.fail("it was opened")


async def test_the_port_is_free_after_closing():
    """At once, even if a client kept its connection open."""
    async with aiohttp.ClientSession() as session:
        async with open_server(app(), "127.0.0.1", 0) as bound, session.get(bound.url + "/healthz") as reply:
            assert reply.status == 200
        async with open_server(app(), "127.0.0.1", bound.port) as second:
            assert second == Bound("127.0.0.1", bound.port)
    with pytest.raises(aiohttp.ClientConnectorError):
        await _status(bound.url)


async def test_at_most_128_connections_are_open():
    """The oldest are closed, also if many arrive at once, and the newest are served."""
    async with open_server(app(), "127.0.0.1", 0) as bound:
        idle = [await asyncio.open_connection("127.0.0.1", bound.port) for _ in range(100)]
        idle += await asyncio.gather(*(asyncio.open_connection("127.0.0.1", bound.port) for _ in range(100)))
        assert await _status(bound.url) == 200
        async with asyncio.timeout(5):
            assert [await reader.read() for reader, _ in idle[:72]] == [b""] * 72
        open_now = [reader for reader, _ in idle if not reader.at_eof()]
        assert len(open_now) <= 128
        assert await _status(bound.url) == 200
        for _, writer in idle:
            writer.close()
