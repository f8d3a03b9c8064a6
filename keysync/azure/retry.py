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
from keysync.azure.rate_limit import TURN, ArmRateLimiter, Turn
from keysync.calls import READ_BARRIER, CallGuard, CallObserver, Operation
from keysync.failures import CallFailed, FailureRecord, FailureTranslator, StaleRead

T = TypeVar("T")

_TRANSIENT_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})
_TOO_MANY: Final = 429
# How Resource Manager says that it is the bucket of subscription and principal that is empty
# (learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling).
_OF_THE_SUBSCRIPTION: Final = ("SubscriptionRequestsThrottled", "TenantRequestsThrottled")
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

    `guard` lets calls through or refuses them; with `pace` each attempt waits for its turn in the bucket `pace_key`.
    """

    def __init__(
        self,
        translator: FailureTranslator,
        policy: RetryPolicy,
        *,
        timeout: float,
        observe: CallObserver,
        guard: CallGuard | None = None,
        pace: ArmRateLimiter | None = None,
        pace_key: Hashable = None,
    ) -> None:
        self._translator = translator
        self._policy = policy
        self._timeout = timeout
        self._observe = observe
        self._guard = guard
        self._pace = pace
        self._pace_key = pace_key

    def with_breaker(
        self, guard: CallGuard | None, *, pace: ArmRateLimiter | None = None, pace_key: Hashable = None
    ) -> Caller:
        """The same caller behind a guard, and at a pace."""
        return Caller(
            self._translator,
            self._policy,
            timeout=self._timeout,
            observe=self._observe,
            guard=guard,
            pace=pace,
            pace_key=pace_key,
        )

    async def call(self, operation: Operation, scope: str, send: Callable[[], Awaitable[T]]) -> T:
        """What `send` returns, after as many attempts as the policy grants.

        An operation that is not repeatable is sent again only after a failure that cannot have taken effect (a refused
        connection, 429); otherwise CallFailed carries a record with `ambiguous` set, and the caller has to look.
        """
        ticket = await self._guard.admit() if self._guard is not None else None
        failed: list[FailureRecord] = []
        try:
            result = await self._attempts(operation, scope, send, failed)
        except CallFailed as failure:
            if ticket is not None:
                ticket.ended(failure.record)
            raise
        except BaseException:
            if ticket is not None:
                # Whoever has waited long enough for it has learnt something of it, unless not one attempt had ended.
                ticket.ended(failed[-1]) if failed else ticket.gave_up()
            raise
        if ticket is not None:
            ticket.ended(None)
        return result

    async def _attempts(
        self, operation: Operation, scope: str, send: Callable[[], Awaitable[T]], failed: list[FailureRecord]
    ) -> T:
        attempt = 0
        while True:
            attempt += 1
            self._check_fresh(operation, attempt, failed)
            try:
                result = await self._in_turn(scope, send)
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
    def _check_fresh(operation: Operation, attempt: int, failed: list[FailureRecord]) -> None:
        freshness = READ_BARRIER.get()
        if operation.changes and freshness is not None and not freshness.allows(attempt):
            told = "it could not be written while what it was judged by was fresh"
            last = failed[-1] if failed else FailureRecord(kind="throttled", summary="it had to wait for its turn")
            raise StaleRead(replace(last, summary=f"{told} ({last.summary})", ambiguous=False))

    async def _in_turn(self, scope: str, send: Callable[[], Awaitable[T]]) -> T:
        if self._pace is None:
            async with asyncio.timeout(self._timeout):
                return await send()
        held = self._pace.held_for(self._pace_key)
        if held > self._policy.retry_after_cap:
            raise CallFailed(_still_held(scope, held))
        # Waiting for a turn is no part of the deadline of a request.
        async with self._pace.acquire(self._pace_key) as turn, asyncio.timeout(self._timeout):
            token = TURN.set(turn)
            try:
                return await send()
            except Exception as error:
                self._note_throttling(turn, self._translator.record(error, operation="", scope=scope))
                raise
            finally:
                TURN.reset(token)

    @staticmethod
    def _note_throttling(turn: Turn, record: FailureRecord) -> None:
        # A 429 of one account (its provider's) is that account's; only the subscription's own holds up the others.
        if record.http_status == _TOO_MANY and record.has_code(*_OF_THE_SUBSCRIPTION):
            turn.refused(record.retry_after)

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


def _still_held(scope: str, seconds: float) -> FailureRecord:
    told = f"Resource Manager has asked this identity to wait {seconds:.0f} s more: {scope} is not asked in this run"
    hint = hint_for(kind="throttled", codes=(), message="", operation="", scope=scope)
    return FailureRecord(kind="throttled", summary=told, http_status=429, hint=hint, retry_after=seconds)


def _transient(record: FailureRecord) -> bool:
    if record.kind == "credential_unavailable":
        return False
    return record.http_status in _TRANSIENT_STATUS or (record.http_status is None and record.kind in _TRANSIENT_KINDS)
