"""Deadlines and retries of single calls, instead of the SDK's retry policy.

The SDK does not retry listKeys (a POST) after a dropped connection, a 502 or a 429 without Retry-After. It retries a PUT
after an ambiguous failure, and waits however long Retry-After asks for (docs/decisions/0001).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from keysync.azure.hints import with_hint
from keysync.azure.rate_limit import CURRENT_SLOT, ArmRateLimiter, RateLimitSlot
from keysync.calls import READ_BARRIER, CallAdmission, CallObserver, Operation
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
    """The limits of retries, in seconds.

    A call fails if the service asks to wait longer than `retry_after_cap`; Resource Manager has been seen to ask for 20 to 45
    minutes. `sleep` and `uniform` let tests control time and randomness.
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


class Caller:
    """Makes calls with retries. Each attempt has `timeout` seconds. Raises CallFailed after the last attempt.

    `admission` allows or refuses each call. With `rate_limiter` each attempt waits for a slot in the bucket `rate_limit_key`.
    """

    def __init__(
        self,
        translator: FailureTranslator,
        policy: RetryPolicy,
        *,
        timeout: float,
        observe: CallObserver,
        admission: CallAdmission | None = None,
        rate_limiter: ArmRateLimiter | None = None,
        rate_limit_key: Hashable = None,
    ) -> None:
        self._translator = translator
        self._policy = policy
        self._timeout = timeout
        self._observe = observe
        self._admission = admission
        self._rate_limiter = rate_limiter
        self._rate_limit_key = rate_limit_key

    def with_breaker(
        self,
        admission: CallAdmission | None,
        *,
        rate_limiter: ArmRateLimiter | None = None,
        rate_limit_key: Hashable = None,
    ) -> Caller:
        """The same caller with an admission, and optionally with a rate limiter."""
        return Caller(
            self._translator,
            self._policy,
            timeout=self._timeout,
            observe=self._observe,
            admission=admission,
            rate_limiter=rate_limiter,
            rate_limit_key=rate_limit_key,
        )

    async def call(self, operation: Operation, scope: str, send: Callable[[], Awaitable[T]]) -> T:
        """The result of `send`, after at most as many attempts as the policy allows. Raises CallFailed.

        A non-repeatable operation is sent again only after a failure that cannot have taken effect, such as a refused connection
        or a 429. Otherwise the record of CallFailed is `ambiguous`, and the caller has to check the effect.
        """
        permit = await self._admission.admit() if self._admission is not None else None
        failed: list[FailureRecord] = []
        try:
            result = await self._attempts(operation, scope, send, failed)
        except CallFailed as failure:
            if permit is not None:
                permit.finished(failure.record)
            raise
        except BaseException:
            if permit is not None:
                # Cancelled: a failed attempt still tells the breaker about the service.
                permit.finished(failed[-1]) if failed else permit.cancelled()
            raise
        if permit is not None:
            permit.finished(None)
        return result

    async def _attempts(
        self, operation: Operation, scope: str, send: Callable[[], Awaitable[T]], failed: list[FailureRecord]
    ) -> T:
        attempt = 0
        while True:
            attempt += 1
            self._check_read_barrier(operation, attempt, failed)
            try:
                result = await self._send_in_slot(scope, send)
            except CallFailed:
                raise
            except Exception as error:  # noqa: BLE001  # an SDK may raise anything for a bad reply
                record = self._translator.record(error, operation=operation.name, scope=scope, calling=True)
                failed.append(record)
            else:
                self._observe(operation, "200")
                return result
            self._observe(operation, str(record.http_status or record.kind))
            await self._wait_or_raise(operation, attempt, record)

    @staticmethod
    def _check_read_barrier(operation: Operation, attempt: int, failed: list[FailureRecord]) -> None:
        barrier = READ_BARRIER.get()
        if operation.changes and barrier is not None and not barrier.allows(attempt):
            reason = "not sent (again), since the read that it is based on is too old"
            last = failed[-1] if failed else FailureRecord(kind="throttled", summary="the rate limit delayed it")
            raise StaleRead(replace(last, summary=f"{reason} ({last.summary})", ambiguous=False))

    async def _send_in_slot(self, scope: str, send: Callable[[], Awaitable[T]]) -> T:
        if self._rate_limiter is None:
            async with asyncio.timeout(self._timeout):
                return await send()
        blocked_seconds = self._rate_limiter.blocked_for(self._rate_limit_key)
        if blocked_seconds > self._policy.retry_after_cap:
            raise CallFailed(_still_blocked(scope, blocked_seconds))
        # The wait for a slot does not count against the deadline of the request.
        async with self._rate_limiter.acquire(self._rate_limit_key) as slot, asyncio.timeout(self._timeout):
            token = CURRENT_SLOT.set(slot)
            try:
                return await send()
            except Exception as error:
                self._note_throttling(slot, self._translator.record(error, operation="", scope=scope))
                raise
            finally:
                CURRENT_SLOT.reset(token)

    @staticmethod
    def _note_throttling(slot: RateLimitSlot, record: FailureRecord) -> None:
        # Only a 429 for the subscription blocks the bucket. Others, of the Batch provider, concern a single account.
        if record.http_status == _TOO_MANY_REQUESTS and record.has_code(*_SUBSCRIPTION_THROTTLED):
            slot.throttled(record.retry_after)

    async def _wait_or_raise(self, operation: Operation, attempt: int, record: FailureRecord) -> None:
        unsafe = record.ambiguous and not operation.repeatable
        delay = None if unsafe else self._policy.delay(attempt, record)
        if delay is None:
            raise CallFailed(self._final(record))
        await self._policy.sleep(delay)

    def _final(self, record: FailureRecord) -> FailureRecord:
        wait = record.retry_after
        if wait is None or wait <= self._policy.retry_after_cap or not _transient(record):
            return record
        reason = f"Azure asks to wait {wait:.0f} s, more than the {self._policy.retry_after_cap:.0f} s that a run waits"
        return replace(record, kind="throttled", summary=f"{record.summary} ({reason}: skipped in this run)")


def _still_blocked(scope: str, seconds: float) -> FailureRecord:
    reason = f"Resource Manager asks this identity to wait {seconds:.0f} s more: {scope} is skipped in this run"
    return with_hint(FailureRecord(kind="throttled", summary=reason, http_status=429, retry_after=seconds), scope)


def _transient(record: FailureRecord) -> bool:
    if record.kind == "credential_unavailable":
        return False
    return record.http_status in _TRANSIENT_STATUS or (record.http_status is None and record.kind in _TRANSIENT_KINDS)
