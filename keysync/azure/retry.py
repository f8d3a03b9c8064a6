"""Deadlines and retries of single calls, in place of the SDK's retry policy.

The SDK does not repeat listKeys (a POST) after a dropped connection, a 502 or a 429 without Retry-After, repeats a PUT
after an ambiguous failure, and sleeps for as long as Retry-After says (docs/decisions/0001).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from keysync.azure.hints import hint_for
from keysync.azure.rate_limit import CURRENT_SLOT, ArmRateLimiter, RateLimitSlot
from keysync.calls import READ_BARRIER, CallAdmission, CallObserver, Operation
from keysync.failures import CallFailed, FailureRecord, FailureTranslator, StaleRead

T = TypeVar("T")

_TRANSIENT_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})
_TOO_MANY: Final = 429
# How Resource Manager says that it is the bucket of subscription and principal that is empty
# (learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling).
_SUBSCRIPTION_THROTTLED: Final = ("SubscriptionRequestsThrottled", "TenantRequestsThrottled")
_TRANSIENT_KINDS: Final = frozenset({"connection", "timeout", "dns", "invalid_response"})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounds of retrying. Seconds throughout.

    `retry_after_cap` is the longest wait that a service may ask for: above it the call is given up and says so (ARM has
    been seen to ask for 20 to 45 minutes). `sleep` and `uniform` are handed in so that tests control time and chance.
    """

    attempts: int = 4
    base: float = 0.4
    cap: float = 8.0
    retry_after_cap: float = 30.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[float, float], float] = field(default=random.uniform)

    def delay(self, attempt: int, record: FailureRecord) -> float | None:
        """How long to wait after failed `attempt` (from 1), or None where another would not help."""
        if attempt >= self.attempts or not _transient(record):
            return None
        if record.retry_after is None:
            return self.uniform(0.0, min(self.cap, self.base * 2**attempt))
        if record.retry_after > self.retry_after_cap:
            return None
        # Jitter on top: all who were told the same second must not come back in it.
        return record.retry_after + self.uniform(0.0, self.base)


class Caller:
    """Makes calls, each attempt within `timeout` seconds, and raises CallFailed when they fail for good.

    `admission` lets calls through or refuses them; with `rate_limiter` each attempt waits for its turn in the bucket `rate_limit_key`.
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
        """The same caller behind a guard, and at a pace."""
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
        """What `send` returns, after as many attempts as the policy grants.

        An operation that is not repeatable is sent again only after a failure that cannot have taken effect (a refused
        connection, 429); otherwise CallFailed carries a record with `ambiguous` set, and the caller has to look.
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
                # Whoever has waited long enough for it has learnt something of it, unless not one attempt had ended.
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
            except Exception as error:  # noqa: BLE001  # whatever a reply makes an SDK raise becomes a record
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
            told = "it could not be written while what it was judged by was fresh"
            last = failed[-1] if failed else FailureRecord(kind="throttled", summary="it had to wait for its turn")
            raise StaleRead(replace(last, summary=f"{told} ({last.summary})", ambiguous=False))

    async def _send_in_slot(self, scope: str, send: Callable[[], Awaitable[T]]) -> T:
        if self._rate_limiter is None:
            async with asyncio.timeout(self._timeout):
                return await send()
        blocked_seconds = self._rate_limiter.blocked_for(self._rate_limit_key)
        if blocked_seconds > self._policy.retry_after_cap:
            raise CallFailed(_still_blocked(scope, blocked_seconds))
        # Waiting for a turn is no part of the deadline of a request.
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
        # A 429 of one account (its provider's) is that account's; only the subscription's own holds up the others.
        if record.http_status == _TOO_MANY and record.has_code(*_SUBSCRIPTION_THROTTLED):
            slot.throttled(record.retry_after)

    async def _wait_or_raise(self, operation: Operation, attempt: int, record: FailureRecord) -> None:
        blind = record.ambiguous and not operation.repeatable
        delay = None if blind else self._policy.delay(attempt, record)
        if delay is None:
            raise CallFailed(self._final(record))
        await self._policy.sleep(delay)

    def _final(self, record: FailureRecord) -> FailureRecord:
        wait = record.retry_after
        if wait is None or wait <= self._policy.retry_after_cap or not _transient(record):
            return record
        told = (
            f"Azure asks to wait {wait:.0f} s, longer than the {self._policy.retry_after_cap:.0f} s that one run waits"
        )
        return replace(record, kind="throttled", summary=f"{record.summary} ({told}: given up for this run)")


def _still_blocked(scope: str, seconds: float) -> FailureRecord:
    told = f"Resource Manager has asked this identity to wait {seconds:.0f} s more: {scope} is not asked in this run"
    hint = hint_for(kind="throttled", codes=(), message="", operation="", scope=scope)
    return FailureRecord(kind="throttled", summary=told, http_status=429, hint=hint, retry_after=seconds)


def _transient(record: FailureRecord) -> bool:
    if record.kind == "credential_unavailable":
        return False
    return record.http_status in _TRANSIENT_STATUS or (record.http_status is None and record.kind in _TRANSIENT_KINDS)
