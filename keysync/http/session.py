"""The parts of an aiohttp session: the TLS context, the sockets, and the error of a reply that was cut off."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

import aiohttp

from keysync.errors import UsageError
from keysync.files import check_regular

_MAX_WAIT_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.01


class ReplyLost(aiohttp.ClientError):
    """An established connection broke: the request may have taken effect."""


class Sockets:
    """Makes the sockets of a session (aiohttp's `socket_factory`) and closes them.

    A cancelled call leaves its TLS connection in shutdown, and aiohttp does not wait for that. If the event loop ends before,
    the socket stays open.
    """

    def __init__(self) -> None:
        self._sockets: WeakSet[socket.socket] = WeakSet()

    def __call__(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for one address, in the form of `socket.getaddrinfo`."""
        family, kind, protocol, *_ = info
        new_socket = socket.socket(family, kind, protocol)
        self._sockets.add(new_socket)
        return new_socket

    async def close(self) -> None:
        """Shuts down the open sockets and waits until the event loop has closed them, at most a second."""
        for each in self._sockets:
            with suppress(OSError):  # never connected, or closed
                each.shutdown(socket.SHUT_RDWR)
        with suppress(TimeoutError):
            async with asyncio.timeout(_MAX_WAIT_SECONDS):
                while any(each.fileno() >= 0 for each in self._sockets):  # noqa: ASYNC110  # asyncio has no event for it
                    await asyncio.sleep(_POLL_SECONDS)


def tls_context(ca_bundle: Path | None) -> ssl.SSLContext:
    """Trusts the system's CAs (or those of SSL_CERT_FILE) and those of `ca_bundle`.

    Raises UsageError if one of the files cannot be read, so that it fails at startup and not for every account.
    """
    context = ssl.create_default_context()
    ssl_cert_file = os.environ.get("SSL_CERT_FILE")
    if ssl_cert_file and not context.cert_store_stats()["x509"]:
        # OpenSSL has read the file and ignored an error: load it again to get the error.
        hint = "name a PEM file of the CAs to trust, or unset it"
        _trust(context, Path(ssl_cert_file), f"SSL_CERT_FILE={ssl_cert_file}: this is not a readable PEM file", hint)
    if ca_bundle is not None:
        _trust(context, ca_bundle, f"cloud.ca_bundle: {ca_bundle} is not a readable PEM file")
    return context


def _trust(context: ssl.SSLContext, path: Path, message: str, hint: str = "") -> None:
    try:
        check_regular(path)  # OpenSSL would block on a FIFO
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise UsageError(f"{message} ({error})" + (f"; {hint}" if hint else "")) from error
