"""Collect: both sides of an account's items in one vault, at once; a failure, a hang or a hostile reply is theirs alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from keysync.azure.errors import AzureFailure, FailureRecord, FailureTranslator
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.value import SecretValue
from keysync.sources.interface import AccountKeys, KeySource
from keysync.sync.model import Item, ItemRef, KeyRefused, Observed, Seen, Unseen
from keysync.sync.plan import may_need_a_version
from keysync.targets.interface import Existing, Observation, SecretTarget


@dataclass(frozen=True, slots=True)
class AccountScope:
    """One account in one vault: where its keys come from and the items that it should serve there.

    An account that serves several vaults has a scope for each, so that a vault that hangs does not hold up the others.
    """

    account: str
    source: KeySource
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Collected:
    """What one account showed, and the values that a write of it would need (masked in every printed form)."""

    account: str
    observed: tuple[Observed, ...]
    values: Mapping[ItemRef, SecretValue] = field(default_factory=dict)


class Collector:
    """Collects accounts, `concurrency` at a time.

    `account_seconds` is the deadline of one account. One that takes longer than `patience_seconds` no longer counts
    against `concurrency`: however many hang, the others get their turn.
    """

    def __init__(
        self,
        targets: Mapping[str, SecretTarget],
        fingerprinter: Fingerprinter,
        translator: FailureTranslator,
        *,
        concurrency: int,
        account_seconds: float,
        patience_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._targets = targets
        self._fingerprinter = fingerprinter
        self._translator = translator
        self._slots = asyncio.Semaphore(concurrency)
        self._account_seconds = account_seconds
        self._patience_seconds = patience_seconds
        self._clock = clock

    async def collect(self, scope: AccountScope) -> Collected:
        """Both sides of every item; never raises for a failure of Azure."""
        await self._slots.acquire()
        release = _Once(self._slots)
        impatience = asyncio.get_running_loop().call_later(self._patience_seconds, release)
        try:
            async with asyncio.timeout(self._account_seconds):
                return await self._both_sides(scope)
        except TimeoutError:
            told = f"the account was not done within {self._account_seconds:g} s (timeouts.account)"
            return _all_failed(scope, FailureRecord(kind="timeout", summary=told))
        except Exception as error:  # noqa: BLE001  # a fault of ours in one account must not stop the others
            return _all_failed(scope, self._translator.record(error, operation="collect", scope=scope.account))
        finally:
            impatience.cancel()
            release()

    async def _both_sides(self, scope: AccountScope) -> Collected:
        # Outcomes rather than exceptions: a vault that fails says nothing of the keys, and neither ends the other.
        keys, stored = await asyncio.gather(
            asyncio.gather(scope.source.get_keys(), return_exceptions=True),
            asyncio.gather(*(self._stored(item) for item in scope.items), return_exceptions=True),
        )
        collected = self._paired(scope, keys[0], stored)
        return replace(collected, observed=await self._with_histories(collected.observed))

    async def _with_histories(self, observed: Sequence[Observed]) -> tuple[Observed, ...]:
        return tuple(await asyncio.gather(*(self._with_history(one) for one in observed)))

    async def _with_history(self, one: Observed) -> Observed:
        if not isinstance(one, Seen) or not isinstance(one.stored, Existing) or not may_need_a_version(one):
            return one
        try:
            history = await self._targets[one.item.ref.vault].history(one.item.ref.secret, one.stored.version)
        except AzureFailure:
            # An identity that may not list versions still keeps keys in step (docs/safety.md).
            return one
        return replace(one, history=history)

    def _paired(
        self,
        scope: AccountScope,
        keys: AccountKeys | BaseException,
        stored: Sequence[tuple[Observation, float] | BaseException],
    ) -> Collected:
        if isinstance(keys, BaseException):
            return _all_failed(scope, self._record(keys, "listKeys", scope.account))
        pairs = zip(scope.items, stored, strict=True)
        observed = tuple(self._observed(item, keys, side) for item, side in pairs)
        values = {item.ref: keys.values[item.ref.key] for item in scope.items if item.ref.key in keys.values}
        return Collected(scope.account, observed, values)

    async def _stored(self, item: Item) -> tuple[Observation, float]:
        # The time before the look: it is at least as old as that.
        at = self._clock()
        return await self._targets[item.ref.vault].read(item.ref.secret), at

    def _observed(self, item: Item, keys: AccountKeys, stored: tuple[Observation, float] | BaseException) -> Observed:
        if item.ref.key in keys.refused:
            return KeyRefused(item, keys.refused[item.ref.key])
        if isinstance(stored, BaseException):
            return Unseen(item, self._record(stored, "getSecret", item.ref.vault))
        prints = {name: self._fingerprinter.of(value) for name, value in keys.values.items()}
        other = prints.get("secondary" if item.ref.key == "primary" else "primary")
        return Seen(item, prints[item.ref.key], stored[0], other, stored[1])

    def _record(self, error: BaseException, operation: str, scope: str) -> FailureRecord:
        if isinstance(error, AzureFailure):
            return error.record
        if isinstance(error, asyncio.CancelledError) and not _is_being_cancelled():
            return FailureRecord(kind="internal", summary="the call was given up by whoever shared it")
        if not isinstance(error, Exception):
            raise error  # the pass is being ended
        return self._translator.record(error, operation=operation, scope=scope)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Once:
    """Gives one slot back, however often it is called."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots: asyncio.Semaphore | None = slots

    def __call__(self) -> None:
        if self._slots is not None:
            self._slots.release()
            self._slots = None


def _all_failed(scope: AccountScope, record: FailureRecord) -> Collected:
    return Collected(scope.account, tuple(Unseen(item, record) for item in scope.items))
