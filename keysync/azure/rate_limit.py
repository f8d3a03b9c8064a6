"""Client-side rate limits: a token bucket for each Resource Manager scope, a sliding window for each vault."""

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

# Which of them a call spends is documented nowhere, so the smallest is what counts.
_REMAINING: Final = (
    "x-ms-ratelimit-remaining-subscription-writes",
    "x-ms-ratelimit-remaining-subscription-global-writes",
    "x-ms-ratelimit-remaining-subscription-resource-requests",
)
_NUMBER: Final = re.compile(r"\d{1,9}\s*$")


@dataclass(frozen=True, slots=True)
class RateLimitPolicy:
    """Bounds of pacing. `capacity` and `rate` (a second) are Resource Manager's own numbers.

    `floor` is what is left for others of the same principal, and for replies that overtake one another: above it calls
    go as they come, at it one by one at `rate`. `default_block` is how long a 429 without Retry-After holds;
    `max_block` is an hour, above the 45 minutes that have been seen: no reply may shut a bucket for good.
    `sleep` and `monotonic` (seconds) are handed in so that tests control time.
    """

    capacity: float = 200.0
    rate: float = 10.0
    floor: float = 20.0
    default_block: float = 1.0
    max_block: float = 3600.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic


class TokenBucket:
    """What is known of one bucket, and the queue before it."""

    def __init__(self, policy: RateLimitPolicy) -> None:
        self._policy = policy
        self._queue = asyncio.Lock()  # fair: first come, first served
        self._left: float | None = None  # None: no reply has said so far
        self._counted_at = float("-inf")
        self._granted_at = float("-inf")
        self._granted = 0
        self._in_flight: set[int] = set()
        self.blocked_until = float("-inf")

    async def wait(self) -> int:
        """Returns the number of the turn, by which it is told and ended."""
        # Who is first in the queue waits for the bucket, all others for him: so there is one timer, and no stampede.
        async with self._queue:
            while (pause := self._pause()) > 0:
                await self._policy.sleep(pause)
            self._granted_at = self._policy.monotonic()
            self._granted += 1
            self._in_flight.add(self._granted)
            if self._left is not None:
                self._left -= 1
            return self._granted

    def release(self, number: int) -> None:
        self._in_flight.discard(number)

    def count(self, number: int, left: float) -> None:
        now = self._policy.monotonic()
        if now >= self.blocked_until:
            # What may not be in `left` yet: calls from before that are still under way, and all since, since replies overtake
            # one another: a call that was made later and has been answered may still have been counted later.
            uncounted = self._granted - number + sum(one < number for one in self._in_flight)
            self._left, self._counted_at = left - uncounted, now

    def block(self, retry_after: float | None) -> None:
        seconds = self._policy.default_block if retry_after is None else min(retry_after, self._policy.max_block)
        self.blocked_until = max(self.blocked_until, self._policy.monotonic() + seconds)
        # Empty when the wait is over, so that those who waited come one by one and not all at once.
        self._left, self._counted_at = 0.0, self.blocked_until

    def _pause(self) -> float:
        now = self._policy.monotonic()
        if now < self.blocked_until:
            return self.blocked_until - now
        left = self._refilled(now)
        if left is None or left - 1 >= self._policy.floor:
            return 0.0
        return self._granted_at + 1 / self._policy.rate - now

    def _refilled(self, now: float) -> float | None:
        if self._left is not None and now > self._counted_at:
            self._left = min(self._policy.capacity, self._left + (now - self._counted_at) * self._policy.rate)
            self._counted_at = now
        return self._left


class RateLimitSlot:
    """A call that may be made once the block is entered. Leaving it says that the call is over, whatever came of it."""

    def __init__(self, bucket: TokenBucket) -> None:
        self._bucket = bucket
        self._number = 0

    async def __aenter__(self) -> Self:
        self._number = await self._bucket.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bucket.release(self._number)

    def replied(self, headers: Mapping[str, str]) -> None:
        """There is a reply, whatever its status; header names are read without regard to case."""
        left = _least_left(headers)
        if left is not None:
            self._bucket.count(self._number, left)

    def throttled(self, retry_after: float | None) -> None:
        """The reply was 429, and asked to wait `retry_after` seconds."""
        self._bucket.block(retry_after)


class ArmRateLimiter:
    """One bucket a key (subscription and principal); for one event loop."""

    def __init__(self, policy: RateLimitPolicy | None = None) -> None:
        self._policy = policy or RateLimitPolicy()
        self._buckets: dict[Hashable, TokenBucket] = {}

    def acquire(self, key: Hashable) -> RateLimitSlot:
        """``async with rate_limiter.acquire(key) as slot:`` waits until a call may be made; a cancelled wait costs no turn."""
        return RateLimitSlot(self._buckets.setdefault(key, TokenBucket(self._policy)))

    def blocked_for(self, key: Hashable) -> float:
        """Seconds for which a Retry-After still holds this bucket; 0 where none does. To give up rather than wait."""
        bucket = self._buckets.get(key)
        return max(0.0, bucket.blocked_until - self._policy.monotonic()) if bucket else 0.0


def _least_left(headers: Mapping[str, str]) -> float | None:
    """The smallest of the numbers of what is left; a number may come after a name and a semicolon."""
    lowered = {name.lower(): value for name, value in headers.items()}
    found = [_NUMBER.search(lowered[name]) for name in _REMAINING if name in lowered]
    return min((float(number.group()) for number in found if number is not None), default=None)


CURRENT_SLOT: Final[ContextVar[RateLimitSlot | None]] = ContextVar("current_slot", default=None)
"""The turn of the call that this task makes: where the pipeline of a client leaves what a reply says is left."""


class RateLimitHeaders(SansIOHTTPPolicy[Any, Any]):
    """A policy of a client's pipeline that hands the headers of each reply to the turn of its call."""

    def on_response(self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]) -> None:  # noqa: ARG002
        """Looks at one reply, whatever its status."""
        slot = CURRENT_SLOT.get()
        if slot is not None:
            slot.replied(response.http_response.headers)


class SlidingWindow:
    """At most `count` calls in any `seconds`, first come, first served; more wait. For one event loop.

    `block` keeps everybody waiting, once, where the service has said 429 all the same: somebody else calls it too.
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
        self._queue = asyncio.Lock()  # fair, and one timer for all who wait
        self._blocked_until = float("-inf")

    async def take(self) -> None:
        """Returns when one more call may be made."""
        async with self._queue:
            while (pause := self._pause()) > 0:
                await self._sleep(pause)
            self._calls.append(self._monotonic())

    def block(self, seconds: float) -> None:
        """Nobody calls for so many seconds from now."""
        self._blocked_until = max(self._blocked_until, self._monotonic() + seconds)

    def _pause(self) -> float:
        now = self._monotonic()
        while self._calls and self._calls[0] + self._seconds <= now:
            self._calls.popleft()
        full = self._calls[0] + self._seconds - now if len(self._calls) >= self._count else 0.0
        return max(full, self._blocked_until - now)
