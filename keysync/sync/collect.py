"""Collect: reads the current keys and the stored secrets of each account, many accounts at a time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from keysync.calls import ACCOUNT_TIMEOUT_HINT
from keysync.failures import FailureRecord, FailureTranslator
from keysync.secret.fingerprint import Fingerprint, Fingerprinter
from keysync.secret.value import SecretValue
from keysync.sources.interface import AccountKeys, KeyName
from keysync.sync.history import may_need_version, with_history
from keysync.sync.items import WorkItem
from keysync.sync.model import Item, ItemObservation, ItemRef, KeyRefused, Observed, Unobserved
from keysync.targets.interface import CacheValidation, Observation, SecretTarget, StoredSecret
from keysync.tracing import ACCOUNT, span

_MIN_SLOTS: Final = 4


@dataclass(frozen=True, slots=True)
class Collected:
    """What was read for one work item, and the values that its writes need (masked when printed).

    `values` has no value for a secret that already has its key. `keys` are the fingerprints of the account's keys.
    """

    account: str
    observed: tuple[ItemObservation, ...]
    values: Mapping[ItemRef, SecretValue] = field(default_factory=dict[ItemRef, SecretValue])
    keys: tuple[Fingerprint, ...] = ()


class Collector:
    """Collects accounts, `concurrency` at a time, divided among their groups.

    `account_seconds` is the deadline of one account. After `patience_seconds` an account no longer counts against
    `concurrency`: however many hang, the others get their turn.
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
        self._concurrency = concurrency
        slots = max(_MIN_SLOTS, concurrency // max(1, len(targets)))
        self._vault_slots = {vault: asyncio.Semaphore(slots) for vault in targets}
        self._account_seconds = account_seconds
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._listings: dict[str, CacheValidation] = {}

    def begin(self, work_items: Sequence[WorkItem], on_collected: Callable[[Collected], None]) -> Collection:
        """Starts to collect. `on_collected` is called for each account that has responded or failed.

        Each work item is read once here and again when its turn comes, so that only those in progress are in memory.
        """
        names: dict[str, list[str]] = {}
        groups: dict[Hashable, deque[int]] = {}
        for number, work_item in enumerate(work_items):
            groups.setdefault(work_item.group, deque()).append(number)
            for item in work_item.items:
                names.setdefault(item.ref.vault, []).append(item.ref.secret)
        # A listing of a vault can confirm cached secrets, which then need no read each.
        self._listings = {vault: self._targets[vault].validate_by_listing(names[vault]) for vault in names}
        queues = tuple(groups.values())
        return Collection(self, work_items, queues, self._concurrency, self._patience_seconds, on_collected)

    def plan_failed(self, account: Collected, error: Exception) -> Collected:
        """`account` as one that failed, because planning it raised `error`."""
        record = self._translator.record(error, operation="plan", scope=account.account)
        return Collected(account.account, tuple(Unobserved(each.item, record) for each in account.observed))

    async def end(self) -> None:
        """Ends the listings that `begin` started."""
        await asyncio.gather(*(listing.close() for listing in self._listings.values()))

    async def collect(self, work_item: WorkItem) -> Collected:
        """Reads both sides of every item. Never raises for a failure of Azure."""
        with span(ACCOUNT, {"keysync.account": work_item.account}):
            try:
                async with asyncio.timeout(self._account_seconds):
                    return await self._both_sides(work_item)
            except TimeoutError:
                summary = f"the account was not done within {self._account_seconds:g} s (timeouts.account)"
                record = FailureRecord(kind="timeout", summary=summary, hint=ACCOUNT_TIMEOUT_HINT)
            except Exception as error:  # noqa: BLE001  # a bug that one account triggers must not stop the others
                record = self._translator.record(error, operation="collect", scope=work_item.account)
            return all_failed(work_item, record)

    async def _both_sides(self, work_item: WorkItem) -> Collected:
        # Outcomes instead of exceptions: a vault's failure says nothing about the keys, and neither cancels the other.
        keys, stored = await asyncio.gather(
            work_item.source.get_keys(),
            asyncio.gather(*(self._stored(item) for item in work_item.items), return_exceptions=True),
            return_exceptions=True,
        )
        if isinstance(stored, BaseException):
            raise stored  # the account is cancelled
        collected = self._paired(work_item, keys, stored)
        if not any(isinstance(each, Observed) and may_need_version(each) for each in collected.observed):
            return collected
        return replace(
            collected, observed=tuple(await asyncio.gather(*(self._with_history(each) for each in collected.observed)))
        )

    async def _with_history(self, item: ItemObservation) -> ItemObservation:
        return await with_history(self._targets[item.item.ref.vault], item) if isinstance(item, Observed) else item

    def _paired(
        self,
        work_item: WorkItem,
        keys: AccountKeys | BaseException,
        stored: Sequence[tuple[Observation, float] | BaseException],
    ) -> Collected:
        if isinstance(keys, BaseException):
            return all_failed(work_item, self._record(keys, "listKeys", work_item.account))
        prints: dict[KeyName, Fingerprint] = {
            name: self._fingerprinter.of(value) for name, value in keys.values.items()
        }
        for item, side in zip(work_item.items, stored, strict=True):
            # Equal fingerprints share one object: observations stay in memory until they are planned.
            current = side[0].fingerprint if isinstance(side, tuple) and isinstance(side[0], StoredSecret) else None
            if current is not None and current == prints.get(item.ref.key):
                prints[item.ref.key] = current
        pairs = zip(work_item.items, stored, strict=True)
        observed = tuple(self._observed(item, keys, prints, side) for item, side in pairs)
        # A secret that has its key needs no value, even if its metadata must be written.
        needed = [each.item.ref for each in observed if isinstance(each, Observed) and not _has_its_key(each)]
        values = {ref: keys.values[ref.key] for ref in needed}
        return Collected(work_item.account, observed, values, tuple(prints.values()))

    async def _stored(self, item: Item) -> tuple[Observation, float]:
        """The stored secret, and the monotonic time before it was read."""
        listing = self._listings.get(item.ref.vault)
        cached = await listing.confirmed(item.ref.secret) if listing is not None else None
        if cached is not None:
            return cached
        async with self._vault_slots[item.ref.vault]:
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
        if isinstance(error, asyncio.CancelledError) and not _is_being_cancelled():
            return FailureRecord(kind="internal", summary="another caller cancelled the shared call")
        if not isinstance(error, Exception):
            raise error  # the run is being cancelled
        return self._translator.record(error, operation=operation, scope=scope)


class Collection:
    """Work items being collected, few at a time.

    `queues` are the numbers of the work items, by throttling group. When `tasks` are done, everything is collected.
    `fault` is an error that prevented a work item from being created, so that there is no account to report it for.
    """

    def __init__(
        self,
        collector: Collector,
        work_items: Sequence[WorkItem],
        queues: Sequence[deque[int]],
        concurrency: int,
        patience_seconds: float,
        on_collected: Callable[[Collected], None],
    ) -> None:
        self._collector = collector
        self._patience_seconds = patience_seconds
        self._on_collected = on_collected
        self._work_items = work_items
        self.fault: Exception | None = None
        # The same int objects as in the queues: there may be many thousands.
        self._pending = {number: None for queue in queues for number in queue}
        slots = max(_MIN_SLOTS, concurrency // max(1, len(queues)))
        self._running: set[asyncio.Task[None]] = set()
        self.tasks = [asyncio.create_task(self._feed(queue, slots), name="collect") for queue in queues]

    @property
    def is_over(self) -> bool:
        """Whether every account has responded, failed or been given up."""
        return not self._pending

    def give_up(self) -> Sequence[WorkItem]:
        """Gives up the work items that have not responded, and returns them."""
        given_up = tuple(self._work_items[number] for number in self._pending)
        self._pending.clear()
        return given_up

    async def close(self) -> None:
        """Cancels the remaining tasks."""
        for task in (*self.tasks, *self._running):
            task.cancel()
        await asyncio.gather(*self.tasks, *self._running, return_exceptions=True)
        await self._collector.end()

    async def _feed(self, queue: deque[int], width: int) -> None:
        slots = asyncio.Semaphore(width)
        tasks: set[asyncio.Task[None]] = set()
        while queue:
            await slots.acquire()
            task = asyncio.create_task(self._collect(queue.popleft(), slots))
            for started in (tasks, self._running):
                started.add(task)
                task.add_done_callback(started.discard)
        if tasks:
            await asyncio.wait(tasks)

    async def _collect(self, number: int, slots: asyncio.Semaphore) -> None:
        holds_slot = True

        def release() -> None:
            nonlocal holds_slot
            if holds_slot:
                slots.release()
            holds_slot = False

        timer = asyncio.get_running_loop().call_later(self._patience_seconds, release)
        try:
            if number not in self._pending:
                return  # given up before its turn
            collected = await self._collected(number)
            if number in self._pending:
                del self._pending[number]
                if collected is not None:
                    self._on_collected(collected)
        finally:
            timer.cancel()
            release()

    async def _collected(self, number: int) -> Collected | None:
        try:
            return await self._collector.collect(self._work_items[number])
        except Exception as error:  # noqa: BLE001  # the others must still be collected
            self.fault = self.fault or error
            return None


def all_failed(work_item: WorkItem, record: FailureRecord) -> Collected:
    """A work item of which every item failed with `record`."""
    return Collected(work_item.account, tuple(Unobserved(item, record) for item in work_item.items))


def _has_its_key(observed: Observed) -> bool:
    return isinstance(observed.current, StoredSecret) and observed.current.fingerprint == observed.desired


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
