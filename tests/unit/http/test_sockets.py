"""All sockets are closed before the event loop ends, also those of cancelled calls."""

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
from keysync.http.session import Sockets, tls_context
from keysync.secret.redact import Redactor
from tests.support.receiver import loopback_tls, receiving_in_a_thread


async def cancelled_call(session: aiohttp.ClientSession, url: str, sent: asyncio.Event) -> None:
    """Starts a call and cancels it once it has been sent."""
    call = asyncio.create_task(session.get(url))
    await sent.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


def test_the_socket_of_a_cancelled_call_is_closed(tmp_path: Path) -> None:
    """The loop ends when the session is closed, while a busy server delays the shutdown of the TLS connection."""
    tls, bundle = loopback_tls(tmp_path)
    test_over = threading.Event()

    async def run(url: str) -> None:
        async with AsyncExitStack() as stack:
            transport = await open_transport(stack, ca_bundle=bundle, connect_seconds=5, redactor=Redactor())
            sent, loop = asyncio.Event(), asyncio.get_running_loop()

            def on_request() -> None:
                loop.call_soon_threadsafe(sent.set)
                test_over.wait(20)

            receiver.on_request = on_request
            await cancelled_call(transport.session, url, sent)

    with receiving_in_a_thread(tls) as receiver, warnings.catch_warnings(record=True) as caught_warnings:
        warnings.simplefilter("always")
        try:
            asyncio.run(run(receiver.base))
        finally:
            test_over.set()
        gc.collect()
    assert not [str(item.message) for item in caught_warnings if issubclass(item.category, ResourceWarning)]


class Recorder(Sockets):
    """Keeps the sockets that it has made."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[socket.socket] = []

    def __call__(self, info: tuple[Any, ...]) -> socket.socket:
        """Makes one more socket."""
        self.all.append(super().__call__(info))
        return self.all[-1]


async def test_closing_does_not_wait_for_the_peer(tmp_path: Path) -> None:
    """The peer has stopped reading, so it never ends the TLS connection itself."""
    tls, bundle = loopback_tls(tmp_path)
    sent, finished = asyncio.Event(), asyncio.Event()

    async def stop_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.transport.pause_reading()
        sent.set()
        await finished.wait()
        writer.transport.abort()

    sockets = Recorder()
    async with await asyncio.start_server(stop_reading, "127.0.0.1", 0, ssl=tls) as server:
        connector = aiohttp.TCPConnector(ssl=tls_context(bundle), socket_factory=sockets)
        async with aiohttp.ClientSession(connector=connector) as session:
            await cancelled_call(session, f"https://localhost:{server.sockets[0].getsockname()[1]}/", sent)
        open_sockets = [item for item in sockets.all if item.fileno() >= 0]
        await sockets.close()
        assert open_sockets
        assert not [item for item in sockets.all if item.fileno() >= 0]
        finished.set()


async def test_a_socket_that_was_never_connected_is_closed() -> None:
    """A name may have two addresses, one of which does not answer."""
    sockets = Sockets()
    new_socket = sockets((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1)))
    asyncio.get_running_loop().call_soon(new_socket.close)
    await sockets.close()
    assert new_socket.fileno() == -1
