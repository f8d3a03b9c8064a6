"""The aiohttp session that all clients and credentials share, with one TLS context and a cached proxy per host.

Bodies are read within limits, so that no reply can exhaust memory or block the event loop.
"""

from __future__ import annotations

import zlib
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp
from azure.core.exceptions import DecodeError
from azure.core.pipeline.transport import AioHttpTransport

from keysync.http.proxy import Proxies, ProxyFailed
from keysync.http.session import ReplyLost, Sockets, tls_context
from keysync.names import fold
from keysync.secret.redact import Redactor
from keysync.startup import shrink_tls_buffers

# Longer than any wait between two calls to one host in a run; short, so that a run over hundreds of vaults soon frees its connections.
_KEEP_ALIVE_SECONDS: Final = 5.0
MAX_BODY_BYTES: Final = 4 * 1024 * 1024
"""The limit of a body, after decompression."""

MAX_ERROR_BODY_BYTES: Final = 64 * 1024
"""The limit of an error body. It is lower, as the SDK parses it several times and keysync redacts its texts."""

_CHUNK_BYTES: Final = 64 * 1024
_WINDOW_BITS: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": -zlib.MAX_WBITS}
# The decoders of these take linear time. Other decoders of Python, such as punycode, do not.
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin1", "windows-1252"})


class SharedTransport(AioHttpTransport):  # type: ignore[misc]  # the SDK exports it by a module's __getattr__, without a type
    """The SDKs' transport on a shared session, which stays open when a client is closed. The caller sets the deadline.

    The SDK would look up proxy and netrc for each request, in two other threads. This class looks up the proxy once per host.
    """

    proxies: Proxies

    async def send(self, request: Any, **config: Any) -> Any:  # noqa: ANN401  # the base class's own types
        """Sends one request through the proxy of its host, and loads the reply within the limits.

        Raises UnreadableBody for a success reply whose body exceeds a limit.
        """
        config.pop("proxies", None)
        proxy = self.proxies.proxy_for(request.url)
        if proxy is not None:
            config |= {"proxy": proxy.url, "proxy_headers": proxy.headers}
        base: Any = super()  # has no type, see above
        response = await base.send(request, **{**config, "stream": True})
        await load_body(response)
        return response


def _name_failures(proxies: Proxies) -> aiohttp.ClientMiddlewareType:
    """A middleware that raises ProxyFailed for a proxy's failure, and ReplyLost for a connection that breaks.

    aiohttp would send a GET, PUT or DELETE again when a connection breaks. A second PUT of a secret would make a second version
    with the same value.
    """

    async def send(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        try:
            return await handler(request)
        except aiohttp.ConnectionTimeoutError:
            raise
        except (aiohttp.ClientConnectorError, aiohttp.ClientResponseError) as error:
            proxy = proxies.proxy_for(str(request.url))
            if proxy is None or request.proxy is None:
                raise
            status = None
            if isinstance(error, aiohttp.ClientResponseError):
                status = error.status  # of CONNECT: aiohttp raises no error for the status of a reply
            elif (error.host, error.port) != (request.proxy.host, request.proxy.port):
                raise
            raise ProxyFailed(proxy, status, f"{request.url.host}:{request.url.port}") from error
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            raise ReplyLost(str(error) or type(error).__name__) from error

    return send


async def open_transport(
    stack: AsyncExitStack, *, ca_bundle: Path | None, connect_seconds: float, redactor: Redactor
) -> SharedTransport:
    """Opens the shared session on `stack`. Raises UsageError if the certificates or proxies are unusable.

    `redactor` masks the passwords of the proxies as long as the transport exists.

    The session keeps no cookies and does not decompress bodies: `load_body` does that. The number of connections is not limited
    here. The callers limit their calls, so that a hanging host does not delay calls to others.
    """
    shrink_tls_buffers()
    proxies = Proxies(redactor)
    sockets = Sockets()
    stack.push_async_callback(sockets.close)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            ssl=tls_context(ca_bundle), limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS, socket_factory=sockets
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        middlewares=(_name_failures(proxies),),
    )
    await stack.enter_async_context(session)
    # Without a read timeout: aiohttp would start and stop two timers for it in each call.
    transport = SharedTransport(
        session=session,
        session_owner=False,
        use_env_settings=False,
        connection_timeout=connect_seconds,
        read_timeout=None,
    )
    transport.proxies = proxies
    return transport


class UnreadableBody(DecodeError):
    """The body of a success reply exceeds a limit. The message says which and does not quote the body."""


class _BodyLimitExceeded(Exception):
    """The body exceeds a limit; the message says which."""


async def load_body(response: Any) -> None:  # noqa: ANN401  # the SDK has a class for each of its two request types
    """Loads the body of a streamed response as the SDK does, but within the limits.

    The body of an error reply that exceeds a limit becomes empty. Raises UnreadableBody if that of a success reply does.
    """
    failed, body, problem = response.status_code >= 400, None, None
    reply: aiohttp.ClientResponse = response.internal_response
    charset = fold(reply.charset or "utf-8")
    try:
        body = await _read(reply, charset, MAX_ERROR_BODY_BYTES if failed else MAX_BODY_BYTES)
    except _BodyLimitExceeded as error:
        problem = error
    finally:
        if body is None:
            reply.close()  # the rest of the body is still on the connection
    response._content = body or b""  # noqa: SLF001  # both classes of the SDK store the body there
    response._decompressed_content = True  # noqa: SLF001  # as above
    if reply.charset:
        response.encoding = charset  # the SDK would parse the header again
    if problem is not None and not failed:
        raise UnreadableBody(message=str(problem), response=response) from problem


async def _read(reply: aiohttp.ClientResponse, charset: str, max_bytes: int) -> bytes:
    if charset not in _CHARSETS:
        raise _BodyLimitExceeded("the body of the reply is in an unknown character set")
    window_bits = _WINDOW_BITS.get(fold(reply.headers.get("Content-Encoding", "")))
    inflater = zlib.decompressobj(wbits=window_bits) if window_bits is not None else None
    body, received = bytearray(), False
    async for chunk in reply.content.iter_chunked(_CHUNK_BYTES):
        received = True
        if inflater is None:
            body += chunk
        else:
            _inflate(inflater, chunk, body, max_bytes)
        if len(body) > max_bytes:
            raise _BodyLimitExceeded(f"the body of the reply is longer than {max_bytes} bytes")
    if inflater is not None and received and not inflater.eof:
        raise _BodyLimitExceeded("the compressed body of the reply ends too early")
    return bytes(body)


def _inflate(inflater: Any, chunk: bytes, body: bytearray, max_bytes: int) -> None:  # noqa: ANN401  # zlib does not export the class
    """Decompresses `chunk` into `body` in small parts, until `body` is longer than `max_bytes`."""
    try:
        while chunk and not inflater.eof and len(body) <= max_bytes:
            body += inflater.decompress(chunk, _CHUNK_BYTES)
            chunk = inflater.unconsumed_tail
    except zlib.error as error:
        raise _BodyLimitExceeded("the compressed body of the reply is broken") from error
