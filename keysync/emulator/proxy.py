"""A proxy through which clients reach the emulator by Azure's own host names, without any option.

It connects to nothing but the emulator's own listeners, and passes TLS on unread: the certificate has Azure's names too.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from keysync.emulator.listeners import LOOPBACK

PortOf = Callable[[str, int], int | None]
"""The emulator's port for a host in lower case and a port, None if it does not serve them."""

MAIN_HOSTS: Final = frozenset(
    {
        "login.microsoftonline.com", "login.microsoft.com", "login.windows.net", "sts.windows.net", "management.azure.com",
        "graph.microsoft.com",
    }
)  # fmt: skip
"""Entra, Resource Manager and Graph in the public cloud."""

VAULT_DOMAIN: Final = "vault.azure.net"
BATCH_DOMAIN: Final = "batch.azure.com"
QUEUE_DOMAIN: Final = "queue.core.windows.net"

_CONNECT: Final = re.compile(rb"CONNECT \[?([^\s\]]+?)\]?:(\d{1,5}) HTTP/1\.[01]\r\n")
_MAX_HEAD: Final = 16_384


class Proxy:
    """Serves CONNECT on loopback. `port_of` says where a host leads."""

    def __init__(self, port_of: PortOf) -> None:
        self._port_of = port_of
        self._server: asyncio.Server | None = None
        self._tunnels: set[asyncio.Task[None]] = set()

    async def open(self) -> str:
        """Start to serve. Returns the URL, for the variable HTTPS_PROXY."""
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0, limit=_MAX_HEAD)
        return f"http://{LOOPBACK}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Close the listener and all tunnels."""
        if self._server is not None:
            self._server.close()
        for tunnel in self._tunnels:
            tunnel.cancel()
        await asyncio.gather(*self._tunnels, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tunnel = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tunnels.add(tunnel)
        tunnel.add_done_callback(self._tunnels.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # A client that disconnects, or that sends something else than a request, gets no reply.
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await self._connect(await reader.readuntil(b"\r\n\r\n"), reader, writer)
        finally:
            await _closed(writer)

    async def _connect(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match = _CONNECT.match(head)
        if match is None:
            await _reply(writer, "405 Method Not Allowed", "The proxy of the emulator serves CONNECT only.")
            return
        host, port = match[1].decode("ascii", "replace").lower(), int(match[2])
        own = self._port_of(host, port)
        if own is None:
            await _reply(writer, "403 Forbidden", f"The emulator does not serve {host}:{port}.")
            return
        inner_reader, inner_writer = await asyncio.open_connection(LOOPBACK, own)
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
        finally:
            await _closed(inner_writer)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass everything on, and the end too."""
    with suppress(OSError):
        while data := await reader.read(_MAX_HEAD):
            writer.write(data)
            await writer.drain()
    with suppress(OSError, RuntimeError):  # the other side may have closed already
        writer.close()


async def _reply(writer: asyncio.StreamWriter, status: str, text: str) -> None:
    body = f"{text}\n".encode()
    headers = f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    writer.write(f"HTTP/1.1 {status}\r\n{headers}\r\n".encode() + body)
    await writer.drain()


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
