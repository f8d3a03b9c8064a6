"""One signed POST to a webhook, repeated where that can help; an outcome comes back, never an exception."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from keysync import __version__
from keysync.http.proxy import Proxy, ProxyFailed
from keysync.http.reply import ReplyLost, parse_retry_after
from keysync.secret.signing import Signer

SIGNATURE: Final = "X-Keysync-Signature"
_HEADERS: Final = {"Content-Type": "application/json", "User-Agent": f"keysync/{__version__}"}


@dataclass(frozen=True, slots=True)
class Repeats:
    """Bounds of sending again. Seconds throughout.

    `retry_after_cap` is the longest wait that a receiver's Retry-After is granted, `deadline` the end of everything for one
    body. `sleep` and `uniform` are handed in so that tests control time and chance.
    """

    attempts: int = 5
    base: float = 0.5
    cap: float = 15.0
    retry_after_cap: float = 30.0
    deadline: float = 120.0
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    uniform: Callable[[float, float], float] = field(default=random.uniform)

    def delay(self, attempt: int, retry_after: float | None) -> float:
        """How long to wait after failed `attempt` (from 1): what the receiver asks for, or else a random part of a span
        that doubles."""
        if retry_after is not None:
            return min(retry_after, self.retry_after_cap)
        return self.uniform(0.0, min(self.cap, self.base * 2**attempt))


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one body. `reason` says why it was not taken, None where it was."""

    reason: str | None
    attempts: int
    http_status: int | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    reason: str | None
    http_status: int | None = None
    again: bool = False
    retry_after: float | None = None


class Webhook:
    """Posts JSON to `url`, signed anew for each attempt, each attempt within `timeout` seconds.

    `session` stays its owner's. `proxy` is the one that the receiver's host calls for. `clock` gives seconds
    since 1970. Neither the URL nor the reply's body is ever told: both may hold what only sender and receiver should know.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        signer: Signer,
        *,
        timeout: float,
        proxy: Proxy | None = None,
        repeats: Repeats | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._url = url
        self._signer = signer
        self._timeout = timeout
        self._proxy = proxy
        self._repeats = repeats or Repeats()
        self._clock = clock

    async def post(self, body: bytes) -> Delivery:
        """Sends `body` until it is taken, refused for good, or attempts or time are used up. Raises only CancelledError."""
        attempts = 0
        try:
            async with asyncio.timeout(self._repeats.deadline):
                while True:
                    attempts += 1
                    answer = await self._attempt(body)
                    if not answer.again or attempts >= self._repeats.attempts:
                        return Delivery(answer.reason, attempts, answer.http_status)
                    await self._repeats.sleep(self._repeats.delay(attempts, answer.retry_after))
        except TimeoutError:
            return Delivery(f"not taken within {self._repeats.deadline:g} s", attempts)

    async def _attempt(self, body: bytes) -> _Answer:
        try:
            async with asyncio.timeout(self._timeout), self._request(body) as reply:
                return _judged(reply)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return self._failed(error)

    def _request(self, body: bytes) -> aiohttp.client._RequestContextManager:
        return self._session.post(
            self._url,
            data=body,
            headers={**_HEADERS, SIGNATURE: self._signer.sign(body, self._clock())},
            # A redirect could take the events to somebody else.
            allow_redirects=False,
            proxy=None if self._proxy is None else self._proxy.url,
            proxy_headers=None if self._proxy is None else self._proxy.headers,
            # Half of the time for the connection alone: a host that drops packets is told from one that is slow to answer.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout / 2),
        )

    def _failed(self, error: Exception) -> _Answer:
        match error:
            case ProxyFailed():
                return _Answer(error.reason, error.status, again=error.status is None or error.status >= 500)
            case aiohttp.ClientSSLError():
                return _Answer("no trusted TLS connection")
            case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
                return _Answer("no connection", again=True)
            case TimeoutError():
                return _Answer(f"no answer within {self._timeout:g} s")
            case aiohttp.ClientConnectionError() | ReplyLost() | OSError():
                # It may have been taken: an event has an id by which a receiver knows it again.
                return _Answer("the connection broke", again=True)
        return _Answer(f"unexpected {type(error).__name__}")


def _judged(reply: aiohttp.ClientResponse) -> _Answer:
    status = reply.status
    if 200 <= status < 300:
        return _Answer(None, status)
    told = "a redirect, which is not followed" if 300 <= status < 400 else f"HTTP {status}"
    again = status in {408, 429} or status >= 500
    return _Answer(told, status, again, parse_retry_after(reply.headers) if again else None)
