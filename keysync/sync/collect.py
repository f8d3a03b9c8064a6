"""Collect: the live keys and the stored secrets of each account, read concurrently."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from keysync.calls import ACCOUNT_TIMEOUT_HINT
from keysync.failures import CallFailed, FailureRecord, FailureTranslator
from keysync.secret.fingerprint import Fingerprint, Fingerprinter
from keysync.secret.value import SecretValue
from keysync.sources.interface import AccountKeys, KeyName
from keysync.sync.history import may_need_version, with_history
from keysync.sync.items import WorkItem
from keysync.sync.model import Item, ItemObservation, ItemRef, KeyRefused, Observed, Unobserved
from keysync.targets.interface import ListValidation, Observation, SecretTarget, StoredSecret
from keysync.tracing import ACCOUNT, NO_TRACER, Tracer

_FEWEST_SLOTS: Final = 4
_NOTHING: Final[Mapping[ItemRef, SecretValue]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Collected:
    """What one account showed, and the values that a write of it would need (masked in every printed form).

    A secret that holds its key already has none among them. `keys` are the fingerprints of the account's own keys.
    """

    account: str
    observed: tuple[ItemObservation, ...]
    values: Mapping[ItemRef, SecretValue] = field(default_factory=dict)
    keys: tuple[Fingerprint, ...] = ()


class Collector:
    """Collects accounts, `concurrency` at a time, shared out among their groups.

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
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._targets = targets
        self._fingerprinter = fingerprinter
        self._translator = translator
        self._concurrency = concurrency
        self._vault_slots = {
            vault: asyncio.Semaphore(max(_FEWEST_SLOTS, concurrency // len(targets))) for vault in targets
        }
        self._account_seconds = account_seconds
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._tracer = tracer
        self._surveys: dict[str, ListValidation] = {}

    def begin(self, scopes: Sequence[WorkItem], done: Callable[[Collected], None]) -> Collection:
        """Begins to collect `scopes`; `done` is given each account that has answered, or failed to.

        Each scope is looked at once here, and asked for again when its turn comes, so that of thousands only those under way
        need be there.
        """
        names: dict[str, list[str]] = {}
        groups: dict[Hashable, deque[int]] = {}
        for number, scope in enumerate(scopes):
            groups.setdefault(scope.group, deque()).append(number)
            for item in scope.items:
                names.setdefault(item.ref.vault, []).append(item.ref.secret)
        # What can be known of a vault as a whole need not be asked one by one.
        self._surveys = {vault: self._targets[vault].validate_by_listing(names[vault]) for vault in names}
        return Collection(self, scopes, tuple(groups.values()), self._concurrency, self._patience_seconds, done)

    def plan_failed(self, account: Collected, error: Exception) -> Collected:
        """`account` as one that failed, since what it showed could not be judged."""
        record = self._translator.record(error, operation="plan", scope=account.account)
        return Collected(account.account, tuple(Unobserved(one.item, record) for one in account.observed))

    async def end(self) -> None:
        """Ends what `begin` began."""
        await asyncio.gather(*(survey.close() for survey in self._surveys.values()))

    async def collect(self, scope: WorkItem) -> Collected:
        """Both sides of every item; never raises for a failure of Azure."""
        with self._tracer.span(ACCOUNT, {"keysync.account": scope.account}):
            return await self._collect(scope)

    async def _collect(self, scope: WorkItem) -> Collected:
        try:
            async with asyncio.timeout(self._account_seconds):
                return await self._both_sides(scope)
        except TimeoutError:
            told = f"the account was not done within {self._account_seconds:g} s (timeouts.account)"
            return all_failed(scope, FailureRecord(kind="timeout", summary=told, hint=ACCOUNT_TIMEOUT_HINT))
        except Exception as error:  # noqa: BLE001  # a fault of ours in one account must not stop the others
            return all_failed(scope, self._translator.record(error, operation="collect", scope=scope.account))

    async def _both_sides(self, scope: WorkItem) -> Collected:
        # Outcomes rather than exceptions: a vault that fails says nothing of the keys, and neither ends the other.
        keys, stored = await asyncio.gather(
            scope.source.get_keys(),
            asyncio.gather(*(self._stored(item) for item in scope.items), return_exceptions=True),
            return_exceptions=True,
        )
        if isinstance(stored, BaseException):
            raise stored  # the account is given up
        collected = self._paired(scope, keys, stored)
        if not any(isinstance(one, Observed) and may_need_version(one) for one in collected.observed):
            return collected
        return replace(collected, observed=await self._with_histories(collected.observed))

    async def _with_histories(self, observed: Sequence[ItemObservation]) -> tuple[ItemObservation, ...]:
        return tuple(await asyncio.gather(*(self._with_history(one) for one in observed)))

    async def _with_history(self, one: ItemObservation) -> ItemObservation:
        return await with_history(self._targets[one.item.ref.vault], one) if isinstance(one, Observed) else one

    def _paired(
        self,
        scope: WorkItem,
        keys: AccountKeys | BaseException,
        stored: Sequence[tuple[Observation, float] | BaseException],
    ) -> Collected:
        if isinstance(keys, BaseException):
            return all_failed(scope, self._record(keys, "listKeys", scope.account))
        prints = {name: self._fingerprinter.of(value) for name, value in keys.values.items()}
        for item, side in zip(scope.items, stored, strict=True):
            # One object for both sides where they agree: all that a run has seen is there until it is planned.
            held = side[0].fingerprint if isinstance(side, tuple) and isinstance(side[0], StoredSecret) else None
            if held is not None and held == prints.get(item.ref.key):
                prints[item.ref.key] = held
        pairs = zip(scope.items, stored, strict=True)
        observed = tuple(self._observed(item, keys, prints, side) for item, side in pairs)
        # A secret that holds its key needs no value, whatever else of it is to be written.
        needed = [one.item.ref for one in observed if isinstance(one, Observed) and not _holds_its_key(one)]
        values = {ref: keys.values[ref.key] for ref in needed}
        return Collected(scope.account, observed, values or _NOTHING, tuple(prints.values()))

    async def _stored(self, item: Item) -> tuple[Observation, float]:
        survey = self._surveys.get(item.ref.vault)
        recalled = await survey.confirmed(item.ref.secret) if survey is not None else None
        if recalled is not None:
            return recalled
        async with self._vault_slots[item.ref.vault]:
            # The time before the look: it is at least as old as that.
            at = self._clock()
            return await self._targets[item.ref.vault].read(item.ref.secret), at

    def _observed(
        self,
        item: Item,
        keys: AccountKeys,
        prints: Mapping[KeyName, Fingerprint],
        stored: tuple[Observation, float] | BaseException,
    ) -> ItemObservation:
        if item.ref.key in keys.refused:
            return KeyRefused(item, keys.refused[item.ref.key])
        if isinstance(stored, BaseException):
            return Unobserved(item, self._record(stored, "getSecret", item.ref.vault))
        other = prints.get("secondary" if item.ref.key == "primary" else "primary")
        return Observed(item, prints[item.ref.key], stored[0], other, stored[1])

    def _record(self, error: BaseException, operation: str, scope: str) -> FailureRecord:
        if isinstance(error, CallFailed):
            return error.record
        if isinstance(error, asyncio.CancelledError) and not _is_being_cancelled():
            return FailureRecord(kind="internal", summary="the call was given up by whoever shared it")
        if not isinstance(error, Exception):
            raise error  # the run is being ended
        return self._translator.record(error, operation=operation, scope=scope)


class Collection:
    """Scopes being collected: few tasks at a time, whatever their number; `done` is given each that has answered, or failed to.

    `queues` are the numbers of the scopes, by whom Azure throttles together. `fault` is a fault of ours by which nothing can be
    said of some scope, not even whose it is.
    """

    def __init__(
        self,
        collector: Collector,
        scopes: Sequence[WorkItem],
        queues: Sequence[deque[int]],
        concurrency: int,
        patience_seconds: float,
        done: Callable[[Collected], None],
    ) -> None:
        self._collector = collector
        self._patience_seconds = patience_seconds
        self._done = done
        self._scopes = scopes
        self.fault: Exception | None = None
        # The same numbers, not others that are equal: there may be many thousands.
        self._pending = {number: None for queue in queues for number in queue}
        width = max(_FEWEST_SLOTS, concurrency // max(1, len(queues)))
        self._running: set[asyncio.Task[None]] = set()
        self._feeders = [asyncio.create_task(self._feed(queue, width), name="collect") for queue in queues]

    @property
    def tasks(self) -> Sequence[asyncio.Task[None]]:
        """What is to be waited for: all done once these are."""
        return self._feeders

    @property
    def is_over(self) -> bool:
        """Whether nobody is waited for any more."""
        return not self._pending

    def give_up(self) -> Sequence[WorkItem]:
        """Those that have not answered yet, and are waited for no more."""
        given_up = tuple(self._scopes[number] for number in self._pending)
        self._pending.clear()
        return given_up

    async def close(self) -> None:
        """Ends what still runs."""
        for task in (*self._feeders, *self._running):
            task.cancel()
        await asyncio.gather(*self._feeders, *self._running, return_exceptions=True)
        await self._collector.end()

    async def _feed(self, queue: deque[int], width: int) -> None:
        slots = asyncio.Semaphore(width)
        mine: set[asyncio.Task[None]] = set()
        while queue:
            await slots.acquire()
            task = asyncio.create_task(self._one(queue.popleft(), slots))
            for tasks in (mine, self._running):
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        if mine:
            await asyncio.wait(mine)

    async def _one(self, number: int, slots: asyncio.Semaphore) -> None:
        release = _Once(slots)
        impatience = asyncio.get_running_loop().call_later(self._patience_seconds, release)
        try:
            if number not in self._pending:
                return  # given up before its turn
            collected = await self._collected(number)
            if number in self._pending:
                del self._pending[number]
                if collected is not None:
                    self._done(collected)
        finally:
            impatience.cancel()
            release()

    async def _collected(self, number: int) -> Collected | None:
        try:
            return await self._collector.collect(self._scopes[number])
        except Exception as error:  # noqa: BLE001  # the others are collected all the same
            self.fault = self.fault or error
            return None


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


def all_failed(scope: WorkItem, record: FailureRecord) -> Collected:
    return Collected(scope.account, tuple(Unobserved(item, record) for item in scope.items))


def _holds_its_key(seen: Observed) -> bool:
    return isinstance(seen.stored, StoredSecret) and seen.stored.fingerprint == seen.wanted
