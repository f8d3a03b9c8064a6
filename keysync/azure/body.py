"""Reads the body of a reply within limits: what a peer sends must cost neither memory nor the event loop."""

from __future__ import annotations

import zlib
from typing import Any, Final

import aiohttp
from azure.core.exceptions import DecodeError, IncompleteReadError, ServiceRequestError, ServiceResponseTimeoutError

from keysync.names import fold

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
"""The longest body, after decompression."""

MAX_ERROR_BODY_BYTES: Final = 64 * 1024
"""The longest body of an error. The SDK parses it several times, and every text in it is redacted."""

_CHUNK: Final = 64 * 1024
_WINDOW_BITS: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": -zlib.MAX_WBITS}
# Decoders that need time in proportion to the body. Python knows others, such as punycode.
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin1", "windows-1252"})


class UnreadableBody(DecodeError):
    """A reply of success whose body breaks a limit; its message says which, and repeats nothing of the body."""


async def load_body(response: Any) -> None:  # noqa: ANN401  # the SDK has a class for each of its two request types
    """Loads the body of a response that was asked for as a stream, as the SDK does, within the limits.

    An error keeps its status and loses a body that breaks a rule. Raises UnreadableBody where a reply of success breaks one.
    """
    failed = response.status_code >= 400
    try:
        body = await _read_or_close(response.internal_response, MAX_ERROR_BODY_BYTES if failed else MAX_BODY_BYTES)
    except _Unreadable as error:
        _set_body(response, b"")
        if not failed:
            raise UnreadableBody(message=str(error), response=response) from error
    except aiohttp.ClientPayloadError as error:
        raise IncompleteReadError(error, error=error) from error
    except TimeoutError as error:
        raise ServiceResponseTimeoutError(error, error=error) from error
    except aiohttp.ClientError as error:
        raise ServiceRequestError(error, error=error) from error
    else:
        _set_body(response, body)


def _set_body(response: Any, body: bytes) -> None:  # noqa: ANN401  # see `load_body`
    response._content = body  # noqa: SLF001  # where both classes keep what they have read
    response._decompressed_content = True  # noqa: SLF001


class _Unreadable(Exception):
    """The body breaks a rule; the text says which."""


async def _read_or_close(reply: aiohttp.ClientResponse, most: int) -> bytes:
    try:
        return await _read(reply, most)
    except BaseException:
        reply.close()  # the connection still carries the rest of the body
        raise


async def _read(reply: aiohttp.ClientResponse, most: int) -> bytes:
    if fold(reply.charset or "utf-8") not in _CHARSETS:
        raise _Unreadable("the body of the reply is in an unknown character set")
    window_bits = _WINDOW_BITS.get(fold(reply.headers.get("Content-Encoding", "")))
    inflater = zlib.decompressobj(wbits=window_bits) if window_bits is not None else None
    body = bytearray()
    begun = False
    async for chunk in reply.content.iter_chunked(_CHUNK):
        begun = True
        if inflater is None:
            body += chunk
        else:
            _inflate(inflater, chunk, body, most)
        if len(body) > most:
            raise _Unreadable(f"the body of the reply is longer than {most} bytes")
    if inflater is not None and begun and not inflater.eof:
        raise _Unreadable("the compressed body of the reply ends too early")
    return bytes(body)


def _inflate(inflater: Any, chunk: bytes, body: bytearray, most: int) -> None:  # noqa: ANN401  # zlib does not name its class
    """Adds to `body` what `chunk` holds, in small parts, until it is longer than `most`."""
    try:
        while chunk and not inflater.eof and len(body) <= most:
            body += inflater.decompress(chunk, _CHUNK)
            chunk = inflater.unconsumed_tail
    except zlib.error as error:
        raise _Unreadable("the compressed body of the reply is broken") from error
