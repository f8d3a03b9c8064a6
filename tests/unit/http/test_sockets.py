"""A loop that ends leaves no connection to the garbage collector, whatever became of the calls."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import warnings
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from keysync.azure.transport import open_transport
from keysync.http.sockets import Sockets
from keysync.http.tls import tls_context
from keysync.secret.redact import Redactor
from tests.support.receiver import loopback_tls, receiving_in_a_thread


async def given_up(session: aiohttp.ClientSession, url: str, sent: asyncio.Event) -> None:
    """A call that is under way, and then is not wanted any more."""
    call = asyncio.create_task(session.get(url))
    await sent.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


def test_a_call_that_was_given_up_leaves_no_socket_behind(tmp_path: Path) -> None:
    """The loop ends as soon as the session is closed, while the connection still takes leave of a server that is held up."""
    tls, bundle = loopback_tls(tmp_path)
    over = threading.Event()

    async def run(url: str) -> None:
        async with AsyncExitStack() as stack:
            transport = await open_transport(stack, ca_bundle=bundle, connect_seconds=5, redactor=Redactor())
            sent, loop = asyncio.Event(), asyncio.get_running_loop()

            def heard() -> None:
                loop.call_soon_threadsafe(sent.set)
                over.wait(20)

            receiver.on_request = heard
            await given_up(transport.session, url, sent)

    with receiving_in_a_thread(tls) as receiver, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            asyncio.run(run(receiver.base))
        finally:
            over.set()
        gc.collect()
    assert not [str(one.message) for one in told if issubclass(one.category, ResourceWarning)]


class Recorder(Sockets):
    """Keeps what it has made."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[socket.socket] = []

    def __call__(self, info: tuple[Any, ...]) -> socket.socket:
        """One more."""
        self.all.append(super().__call__(info))
        return self.all[-1]


async def test_nobody_waits_for_the_other_side(tmp_path: Path) -> None:
    """It reads nothing any more, so it never takes leave itself."""
    tls, bundle = loopback_tls(tmp_path)
    sent, let_go = asyncio.Event(), asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.transport.pause_reading()
        sent.set()
        await let_go.wait()
        writer.transport.abort()

    sockets = Recorder()
    async with await asyncio.start_server(deaf, "127.0.0.1", 0, ssl=tls) as server:
        connector = aiohttp.TCPConnector(ssl=tls_context(bundle), socket_factory=sockets)
        async with aiohttp.ClientSession(connector=connector) as session:
            await given_up(session, f"https://localhost:{server.sockets[0].getsockname()[1]}/", sent)
        left = [one for one in sockets.all if one.fileno() >= 0]
        await sockets.close()
        assert left
        assert not [one for one in sockets.all if one.fileno() >= 0]
        let_go.set()


async def test_what_was_never_connected_is_no_trouble() -> None:
    """As a name that has two addresses, one of which does not answer."""
    sockets = Sockets()
    made = sockets((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1)))
    asyncio.get_running_loop().call_soon(made.close)
    await sockets.close()
    assert made.fileno() == -1
