"""Deadlines and retries of single calls, instead of the SDK's retry policy.

The SDK does not retry listKeys (a POST) after a dropped connection, a 502 or a 429 without Retry-After. It retries a PUT
after an ambiguous failure, and waits however long Retry-After asks for (docs/decisions/0001).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from keysync.azure.circuit_breaker import BreakerPermit
from keysync.azure.hints import with_hint
from keysync.azure.rate_limit import TokenBucket
from keysync.calls import READ_BARRIER, CallObserver, Operation
from keysync.failures import CallFailed, FailureRecord, FailureTranslator, StaleRead

T = TypeVar("T")

_TRANSIENT_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})
_TOO_MANY_REQUESTS: Final = 429
# Resource Manager's codes for an empty bucket of subscription and principal
# (learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling).
_SUBSCRIPTION_THROTTLED: Final = ("SubscriptionRequestsThrottled", "TenantRequestsThrottled")
_TRANSIENT_KINDS: Final = frozenset({"connection", "timeout", "dns", "invalid_response"})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The limits of retries, in seconds. `sleep` and `uniform` let tests control time and randomness.

    A call fails if the service asks to wait longer than `retry_after_cap`. Resource Manager has asked for 20 to 45 minutes.
    """

    attempts: int = 4
    base: float = 0.4
    cap: float = 8.0
    retry_after_cap: float = 30.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[float, float], float] = field(default=random.uniform)

    def delay(self, attempt: int, record: FailureRecord) -> float | None:
        """The wait after failed `attempt` (from 1), in seconds; None if another attempt would not help."""
        if attempt >= self.attempts or not _transient(record):
            return None
        if record.retry_after is None:
            return self.uniform(0.0, min(self.cap, self.base * 2**attempt))
        if record.retry_after > self.retry_after_cap:
            return None
        # Added jitter: calls that got the same Retry-After must not all return at once.
        return record.retry_after + self.uniform(0.0, self.base)


@dataclass(frozen=True, slots=True)
class Caller:
    """Makes calls with retries. Each attempt has `timeout` seconds. Raises CallFailed after the last attempt.

    `admit` allows or refuses each call. With `bucket` each attempt waits for a slot in it.
    """

    translator: FailureTranslator
    policy: RetryPolicy
    timeout: float
    observe: CallObserver
    admit: Callable[[], Awaitable[BreakerPermit]] | None = None
    bucket: TokenBucket | None = None

    async def call(self, operation: Operation, scope: str, send: Callable[[], Awaitable[T]]) -> T:
        """The result of `send`, after at most as many attempts as the policy allows. Raises CallFailed.

        A non-repeatable operation is sent again only after a failure that cannot have taken effect, such as a refused connection
        or a 429. Otherwise the record of CallFailed is `ambiguous`, and the caller has to check the effect.
        """
        if self.admit is None:
            return await self._attempts(operation, scope, send, [])
        permit = await self.admit()
        failed: list[FailureRecord] = []
        try:
            result = await self._attempts(operation, scope, send, failed)
        except CallFailed as failure:
            permit.finished(failure.record)
            raise
        except BaseException:
            # Cancelled: a failed attempt still tells the breaker about the service.
            permit.finished(failed[-1]) if failed else permit.cancelled()
            raise
        permit.finished(None)
        return result

    async def _attempts(
        self, operation: Operation, scope: str, send: Callable[[], Awaitable[T]], failed: list[FailureRecord]
    ) -> T:
        while True:
            barrier = READ_BARRIER.get()
            if operation.changes and barrier is not None and not barrier.allows(len(failed) + 1):
                reason = "not sent (again), since the read that it is based on is too old"
                last = failed[-1] if failed else FailureRecord(kind="throttled", summary="the rate limit delayed it")
                raise StaleRead(replace(last, summary=f"{reason} ({last.summary})", ambiguous=False))
            try:
                result = await self._send_in_slot(scope, send)
            except CallFailed:
                raise
            except Exception as error:  # noqa: BLE001  # an SDK may raise anything for a bad reply
                record = self.translator.record(error, operation=operation.name, scope=scope, calling=True)
                failed.append(record)
            else:
                self.observe(operation, "200")
                return result
            self.observe(operation, str(record.http_status or record.kind))
            # Only a 429 for the subscription blocks the bucket. Others, of the Batch provider, concern a single account.
            throttled = record.http_status == _TOO_MANY_REQUESTS and record.has_code(*_SUBSCRIPTION_THROTTLED)
            if self.bucket is not None and throttled:
                self.bucket.block(record.retry_after)
            unsafe = record.ambiguous and not operation.repeatable
            delay = None if unsafe else self.policy.delay(len(failed), record)
            if delay is None:
                raise CallFailed(self._final(record))
            await self.policy.sleep(delay)

    async def _send_in_slot(self, scope: str, send: Callable[[], Awaitable[T]]) -> T:
        if self.bucket is None:
            async with asyncio.timeout(self.timeout):
                return await send()
        seconds = self.bucket.blocked_for()
        if seconds > self.policy.retry_after_cap:
            reason = f"Resource Manager asks this identity to wait {seconds:.0f} s more: {scope} is skipped in this run"
            record = FailureRecord(kind="throttled", summary=reason, http_status=429, retry_after=seconds)
            raise CallFailed(with_hint(record, scope))
        # The wait for a slot does not count against the deadline of the request.
        async with self.bucket.slot(), asyncio.timeout(self.timeout):
            return await send()

    def _final(self, record: FailureRecord) -> FailureRecord:
        wait = record.retry_after
        if wait is None or wait <= self.policy.retry_after_cap or not _transient(record):
            return record
        reason = f"Azure asks to wait {wait:.0f} s, more than the {self.policy.retry_after_cap:.0f} s that a run waits"
        return replace(record, kind="throttled", summary=f"{record.summary} ({reason}: skipped in this run)")


def _transient(record: FailureRecord) -> bool:
    if record.kind == "credential_unavailable":
        return False
    return record.http_status in _TRANSIENT_STATUS or (record.http_status is None and record.kind in _TRANSIENT_KINDS)
