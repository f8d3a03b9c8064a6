"""Client-side rate limits: a token bucket for each subscription and principal, a sliding window for each vault."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Final

ON_REPLY: Final[ContextVar[Callable[[Mapping[str, str]], None] | None]] = ContextVar("on_reply", default=None)
"""Called with the headers of each reply, of any status, to the current task's calls."""

# No documentation says which of them a call reduces, so the lowest counts.
_REMAINING_HEADERS: Final = (
    "x-ms-ratelimit-remaining-subscription-writes",
    "x-ms-ratelimit-remaining-subscription-global-writes",
    "x-ms-ratelimit-remaining-subscription-resource-requests",
)
_NUMBER: Final = re.compile(r"\d{1,9}\s*$")  # a name and a semicolon may precede it


@dataclass(frozen=True, slots=True)
class RateLimitPolicy:
    """The parameters of a token bucket, in seconds. `capacity` and `rate` (per second) are Resource Manager's own."""

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


@dataclass(slots=True)
class TokenBucket:
    """The known state of one bucket at Resource Manager, and the queue of calls that wait for it."""

    policy: RateLimitPolicy = RateLimitPolicy()
    _queue: asyncio.Lock = field(default_factory=asyncio.Lock)  # fair: first in, first out
    _remaining: float | None = None  # None until a reply has the number
    _counted_at: float = float("-inf")
    _granted_at: float = float("-inf")
    _granted_count: int = 0
    _in_flight: set[int] = field(default_factory=set[int])
    _blocked_until: float = float("-inf")

    @asynccontextmanager
    async def slot(self) -> AsyncGenerator[None]:
        """Waits until a call may be made, and reads the headers of its reply. A cancelled wait uses no slot."""
        # Only the first call in the queue waits for the bucket: one timer, and calls do not start all at once.
        async with self._queue:
            while (pause := self._pause()) > 0:
                await self.policy.sleep(pause)
            self._granted_at = self.policy.monotonic()
            self._granted_count += 1
            slot_number = self._granted_count
            self._in_flight.add(slot_number)
            if self._remaining is not None:
                self._remaining -= 1
        token = ON_REPLY.set(partial(self._replied, slot_number))
        try:
            yield
        finally:
            ON_REPLY.reset(token)
            self._in_flight.discard(slot_number)

    def block(self, retry_after: float | None) -> None:
        """Blocks all calls for `retry_after` seconds, or for the policy's default."""
        seconds = self.policy.default_block if retry_after is None else min(retry_after, self.policy.max_block)
        self._blocked_until = max(self._blocked_until, self.policy.monotonic() + seconds)
        # Empty after the block, so that the waiting calls start at `rate` and not all at once.
        self._remaining, self._counted_at = 0.0, self._blocked_until

    def blocked_for(self) -> float:
        """Seconds for which a Retry-After still blocks this bucket, or 0. Lets callers fail instead of waiting."""
        return max(0.0, self._blocked_until - self.policy.monotonic())

    def _replied(self, slot_number: int, headers: Mapping[str, str]) -> None:
        matches = [_NUMBER.search(headers.get(name, "")) for name in _REMAINING_HEADERS]
        remaining = min((int(match.group()) for match in matches if match is not None), default=None)
        now = self.policy.monotonic()
        if remaining is not None and now >= self._blocked_until:
            # Calls that the service may not have counted in `remaining`: earlier ones without a reply, and all later ones. A later
            # call with a reply may still have been counted after this one, as replies arrive out of order.
            uncounted = self._granted_count - slot_number + sum(other < slot_number for other in self._in_flight)
            self._remaining, self._counted_at = float(remaining - uncounted), now

    def _pause(self) -> float:
        now = self.policy.monotonic()
        if now < self._blocked_until:
            return self._blocked_until - now
        if self._remaining is None:
            return 0.0
        if now > self._counted_at:
            self._remaining = min(self.policy.capacity, self._remaining + (now - self._counted_at) * self.policy.rate)
            self._counted_at = now
        return 0.0 if self._remaining - 1 >= self.policy.floor else self._granted_at + 1 / self.policy.rate - now


@dataclass(slots=True)
class SlidingWindow:
    """Allows at most `count` calls in any `seconds`; further calls wait in order. For one event loop."""

    count: int
    seconds: float
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _calls: deque[float] = field(default_factory=deque[float])
    _queue: asyncio.Lock = field(default_factory=asyncio.Lock)  # fair, with one timer for all waiting calls
    _blocked_until: float = float("-inf")

    async def take(self) -> None:
        """Waits until one more call may be made."""
        async with self._queue:
            while (pause := self._pause()) > 0:
                await self.sleep(pause)
            self._calls.append(self.monotonic())

    def block(self, seconds: float) -> None:
        """Blocks all calls for `seconds` from now, as after a 429: other clients may call the service too."""
        self._blocked_until = max(self._blocked_until, self.monotonic() + seconds)

    def _pause(self) -> float:
        now = self.monotonic()
        while self._calls and self._calls[0] + self.seconds <= now:
            self._calls.popleft()
        full = self._calls[0] + self.seconds - now if len(self._calls) >= self.count else 0.0
        return max(full, self._blocked_until - now)
