"""Reads the body of a reply within limits, so that no reply can exhaust memory or block the event loop."""

from __future__ import annotations

import zlib
from typing import Any, Final

import aiohttp
from azure.core.exceptions import DecodeError, IncompleteReadError, ServiceRequestError, ServiceResponseTimeoutError

from keysync.names import fold

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
"""The limit of a body, after decompression."""

MAX_ERROR_BODY_BYTES: Final = 64 * 1024
"""The limit of an error body. It is lower, as the SDK parses it several times and keysync redacts its texts."""

_CHUNK_BYTES: Final = 64 * 1024
_WINDOW_BITS: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": -zlib.MAX_WBITS}
# The decoders of these take linear time. Other decoders of Python, such as punycode, do not.
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin1", "windows-1252"})


class UnreadableBody(DecodeError):
    """The body of a success reply exceeds a limit. The message says which and does not quote the body."""


class _BodyLimitExceeded(Exception):
    """The body exceeds a limit; the message says which."""


async def load_body(response: Any) -> None:  # noqa: ANN401  # the SDK has a class for each of its two request types
    """Loads the body of a streamed response as the SDK does, but within the limits.

    The body of an error reply that exceeds a limit becomes empty. Raises UnreadableBody if that of a success reply does.
    """
    failed, body, problem = response.status_code >= 400, b"", None
    reply: aiohttp.ClientResponse = response.internal_response
    charset, loaded = fold(reply.charset or "utf-8"), False
    try:
        body = await _read(reply, charset, MAX_ERROR_BODY_BYTES if failed else MAX_BODY_BYTES)
        loaded = True
    except _BodyLimitExceeded as error:
        problem = error
    except aiohttp.ClientPayloadError as error:
        raise IncompleteReadError(error, error=error) from error
    except TimeoutError as error:
        raise ServiceResponseTimeoutError(error, error=error) from error
    except aiohttp.ClientError as error:
        raise ServiceRequestError(error, error=error) from error
    finally:
        if not loaded:
            reply.close()  # the rest of the body is still on the connection
    response._content = body  # noqa: SLF001  # both classes of the SDK store the body there
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
    body = bytearray()
    received = False
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
