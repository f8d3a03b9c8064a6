"""Sends one signed POST to a webhook, with retries. Returns an outcome and never raises."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

import aiohttp

from keysync import __version__
from keysync.http.proxy import Proxy, ProxyFailed
from keysync.http.retry_after import parse_retry_after
from keysync.http.session import ReplyLost
from keysync.secret.signing import Signer

SIGNATURE: Final = "X-Keysync-Signature"
_HEADERS: Final = {"Content-Type": "application/json", "User-Agent": f"keysync/{__version__}"}


@dataclass(frozen=True, slots=True)
class WebhookRetries:
    """Limits of retries. All times are in seconds.

    `retry_after_cap` is the longest wait for a receiver's Retry-After. `deadline` limits all attempts for one body. `sleep`
    and `uniform` are parameters so that tests control time and randomness.
    """

    attempts: int = 5
    base: float = 0.5
    cap: float = 15.0
    retry_after_cap: float = 30.0
    deadline: float = 120.0
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    uniform: Callable[[float, float], float] = field(default=random.uniform)

    def delay(self, attempt: int, retry_after: float | None) -> float:
        """The wait after failed `attempt` (from 1): the receiver's Retry-After, else exponential backoff with full jitter."""
        if retry_after is not None:
            return min(retry_after, self.retry_after_cap)
        return self.uniform(0.0, min(self.cap, self.base * 2**attempt))


@dataclass(frozen=True, slots=True)
class Delivery:
    """The outcome for one body. `reason` says why it was not accepted, None if it was.

    `retry`: another attempt may succeed, after the receiver's `retry_after` in seconds if it named one.
    """

    reason: str | None
    http_status: int | None = None
    retry: bool = False
    retry_after: float | None = None
    attempts: int = 1


@dataclass(frozen=True, slots=True, repr=False)
class Webhook:
    """Posts JSON to `url`. Each attempt has its own signature and `timeout` in seconds.

    The caller closes `session`. `proxy` is the proxy for the receiver's host. `clock` returns seconds since 1970. The URL and
    the reply's body are never logged: both may contain secrets of the receiver.
    """

    session: aiohttp.ClientSession
    url: str
    signer: Signer
    timeout: float
    proxy: Proxy | None = None
    retries: WebhookRetries = field(default_factory=WebhookRetries)
    clock: Callable[[], float] = time.time

    async def post(self, body: bytes) -> Delivery:
        """Sends `body` until it is accepted or rejected, or until attempts or time run out. Raises only CancelledError."""
        attempts = 0
        try:
            async with asyncio.timeout(self.retries.deadline):
                while True:
                    attempts += 1
                    delivery = replace(await self._attempt(body), attempts=attempts)
                    if not delivery.retry or attempts >= self.retries.attempts:
                        return delivery
                    await self.retries.sleep(self.retries.delay(attempts, delivery.retry_after))
        except TimeoutError:
            return Delivery(f"not accepted within {self.retries.deadline:g} s", attempts=attempts)

    async def _attempt(self, body: bytes) -> Delivery:
        request = self.session.post(
            self.url,
            data=body,
            headers={**_HEADERS, SIGNATURE: self.signer.sign(body, self.clock())},
            # A redirect could send the events to another receiver.
            allow_redirects=False,
            proxy=None if self.proxy is None else self.proxy.url,
            proxy_headers=None if self.proxy is None else self.proxy.headers,
            # Half of the time for the connection: this distinguishes a host that drops packets from a slow receiver.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.timeout / 2),
        )
        try:
            async with asyncio.timeout(self.timeout), request as reply:
                return _delivery(reply)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return self._failed(error)

    def _failed(self, error: Exception) -> Delivery:
        match error:
            case ProxyFailed():
                return Delivery(error.reason, error.status, retry=error.status is None or error.status >= 500)
            case aiohttp.ClientSSLError():
                return Delivery("no trusted TLS connection")
            case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
                return Delivery("no connection", retry=True)
            case TimeoutError():
                return Delivery(f"no answer within {self.timeout:g} s")
            case aiohttp.ClientConnectionError() | ReplyLost() | OSError():
                # The receiver may have accepted it: it recognizes an event by its id.
                return Delivery("the connection broke", retry=True)
            case _:
                return Delivery(f"unexpected {type(error).__name__}")


def _delivery(reply: aiohttp.ClientResponse) -> Delivery:
    status = reply.status
    if 200 <= status < 300:
        return Delivery(None, status)
    reason = "a redirect, which is not followed" if 300 <= status < 400 else f"HTTP {status}"
    retry = status in {408, 429} or status >= 500
    return Delivery(reason, status, retry, parse_retry_after(reply.headers) if retry else None)
