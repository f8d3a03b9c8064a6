"""Client-side rate limits: a token bucket for each subscription and principal, a sliding window for each vault."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import SansIOHTTPPolicy

# No documentation says which of them a call reduces, so the lowest counts.
_REMAINING_HEADERS: Final = (
    "x-ms-ratelimit-remaining-subscription-writes",
    "x-ms-ratelimit-remaining-subscription-global-writes",
    "x-ms-ratelimit-remaining-subscription-resource-requests",
)
_NUMBER: Final = re.compile(r"\d{1,9}\s*$")


@dataclass(frozen=True, slots=True)
class RateLimitPolicy:
    """The parameters of a token bucket. Times are in seconds.

    `capacity` and `rate` (per second) are Resource Manager's own. `sleep` and `monotonic` let tests control time.
    """

    capacity: float = 200.0
    rate: float = 10.0
    floor: float = 20.0
    """With more remaining calls than this there is no delay, otherwise calls are sent at `rate`. The reserve is for other clients
    of the same principal, and for replies that arrive out of order."""

    default_block: float = 1.0
    """How long a 429 without Retry-After blocks."""

    max_block: float = 3600.0
    """The longest block, so that no reply blocks for good; Retry-After of 45 minutes has been seen."""

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic


class TokenBucket:
    """The known state of one bucket at Resource Manager, and the queue of calls that wait for it."""

    def __init__(self, policy: RateLimitPolicy) -> None:
        self._policy = policy
        self._queue = asyncio.Lock()  # fair: first in, first out
        self._remaining: float | None = None  # None until a reply has the number
        self._counted_at = float("-inf")
        self._granted_at = float("-inf")
        self._granted_count = 0
        self._in_flight: set[int] = set()
        self.blocked_until = float("-inf")

    async def wait(self) -> int:
        """Waits until a call may be made; returns the number of its slot."""
        # Only the first call in the queue waits for the bucket: one timer, and calls do not start all at once.
        async with self._queue:
            while (pause := self._pause()) > 0:
                await self._policy.sleep(pause)
            self._granted_at = self._policy.monotonic()
            self._granted_count += 1
            self._in_flight.add(self._granted_count)
            if self._remaining is not None:
                self._remaining -= 1
            return self._granted_count

    def release(self, slot_number: int) -> None:
        """The call of the slot has ended."""
        self._in_flight.discard(slot_number)

    def count(self, slot_number: int, remaining: float) -> None:
        """The reply to the slot's call says how many calls remain."""
        now = self._policy.monotonic()
        if now >= self.blocked_until:
            # Calls that the service may not have counted in `remaining`: earlier ones without a reply, and all later ones. A later
            # call with a reply may still have been counted after this one, as replies arrive out of order.
            uncounted = self._granted_count - slot_number + sum(other < slot_number for other in self._in_flight)
            self._remaining, self._counted_at = remaining - uncounted, now

    def block(self, retry_after: float | None) -> None:
        """Blocks all calls for `retry_after` seconds, or for the policy's default."""
        seconds = self._policy.default_block if retry_after is None else min(retry_after, self._policy.max_block)
        self.blocked_until = max(self.blocked_until, self._policy.monotonic() + seconds)
        # Empty after the block, so that the waiting calls start at `rate` and not all at once.
        self._remaining, self._counted_at = 0.0, self.blocked_until

    def _pause(self) -> float:
        now = self._policy.monotonic()
        if now < self.blocked_until:
            return self.blocked_until - now
        remaining = self._refilled(now)
        if remaining is None or remaining - 1 >= self._policy.floor:
            return 0.0
        return self._granted_at + 1 / self._policy.rate - now

    def _refilled(self, now: float) -> float | None:
        if self._remaining is not None and now > self._counted_at:
            self._remaining = min(self._policy.capacity, self._remaining + (now - self._counted_at) * self._policy.rate)
            self._counted_at = now
        return self._remaining


class RateLimitSlot:
    """A context manager for one call: entering it waits until the call may be made, leaving it ends the call."""

    def __init__(self, bucket: TokenBucket) -> None:
        self._bucket = bucket
        self._slot_number = 0

    async def __aenter__(self) -> Self:
        self._slot_number = await self._bucket.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bucket.release(self._slot_number)

    def replied(self, headers: Mapping[str, str]) -> None:
        """Reads the headers of the reply, of any status. The case of header names is ignored."""
        remaining = _lowest_remaining(headers)
        if remaining is not None:
            self._bucket.count(self._slot_number, remaining)

    def throttled(self, retry_after: float | None) -> None:
        """The reply was a 429 with `retry_after` seconds, or None without."""
        self._bucket.block(retry_after)


class ArmRateLimiter:
    """One bucket per key (subscription and principal), for one event loop."""

    def __init__(self, policy: RateLimitPolicy | None = None) -> None:
        self._policy = policy or RateLimitPolicy()
        self._buckets: dict[Hashable, TokenBucket] = {}

    def acquire(self, key: Hashable) -> RateLimitSlot:
        """``async with rate_limiter.acquire(key) as slot:`` waits until a call may be made. A cancelled wait uses no slot."""
        return RateLimitSlot(self._buckets.setdefault(key, TokenBucket(self._policy)))

    def blocked_for(self, key: Hashable) -> float:
        """Seconds for which a Retry-After still blocks this bucket, or 0. Lets callers fail instead of waiting."""
        bucket = self._buckets.get(key)
        return max(0.0, bucket.blocked_until - self._policy.monotonic()) if bucket else 0.0


def _lowest_remaining(headers: Mapping[str, str]) -> float | None:
    """The lowest number in the headers. A name and a semicolon may precede a number."""
    lowered = {name.lower(): value for name, value in headers.items()}
    matches = [_NUMBER.search(lowered[name]) for name in _REMAINING_HEADERS if name in lowered]
    return min((float(match.group()) for match in matches if match is not None), default=None)


CURRENT_SLOT: Final[ContextVar[RateLimitSlot | None]] = ContextVar("current_slot", default=None)
"""The slot of the current task's call. The client's pipeline passes the reply's headers to it."""


class RateLimitHeaders(SansIOHTTPPolicy[Any, Any]):
    """A pipeline policy: passes the headers of each reply to the slot of its call."""

    def on_response(self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]) -> None:  # noqa: ARG002  # the SDK's signature
        """Reads the headers of one reply, of any status."""
        slot = CURRENT_SLOT.get()
        if slot is not None:
            slot.replied(response.http_response.headers)


class SlidingWindow:
    """Allows at most `count` calls in any `seconds`; further calls wait in order. For one event loop.

    `block` delays all calls after a 429, which occurs if other clients call the service too.
    """

    def __init__(
        self,
        count: int,
        seconds: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._count = count
        self._seconds = seconds
        self._monotonic = monotonic
        self._sleep = sleep
        self._calls: deque[float] = deque()
        self._queue = asyncio.Lock()  # fair, with one timer for all waiting calls
        self._blocked_until = float("-inf")

    async def take(self) -> None:
        """Waits until one more call may be made."""
        async with self._queue:
            while (pause := self._pause()) > 0:
                await self._sleep(pause)
            self._calls.append(self._monotonic())

    def block(self, seconds: float) -> None:
        """Blocks all calls for `seconds` from now."""
        self._blocked_until = max(self._blocked_until, self._monotonic() + seconds)

    def _pause(self) -> float:
        now = self._monotonic()
        while self._calls and self._calls[0] + self._seconds <= now:
            self._calls.popleft()
        full = self._calls[0] + self._seconds - now if len(self._calls) >= self._count else 0.0
        return max(full, self._blocked_until - now)
