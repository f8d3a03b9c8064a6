"""Collect: reads the current keys and the stored secrets of each account, many accounts at a time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from keysync.calls import ACCOUNT_TIMEOUT_HINT
from keysync.failures import FailureRecord, FailureTranslator
from keysync.secret.fingerprint import Fingerprint, Fingerprinter
from keysync.secret.value import SecretValue
from keysync.sync.history import may_need_version, with_history
from keysync.sync.items import WorkItem
from keysync.sync.model import Change, Item, ItemRef, Observed
from keysync.targets.interface import CacheValidation, Observation, SecretTarget, StoredSecret
from keysync.tracing import ACCOUNT, span

_MIN_SLOTS: Final = 4


@dataclass(frozen=True, slots=True)
class Collected:
    """What was read for one work item, and the values that its writes need (masked when printed).

    `failed`: the items whose key or secret could not be read, or whose key may not be written. `values` has no value for a secret
    that already has its key. `keys` are the fingerprints of the account's keys.
    """

    account: str
    observed: Sequence[Observed] = ()
    failed: Sequence[Change] = ()
    values: Mapping[ItemRef, SecretValue] = field(default_factory=dict[ItemRef, SecretValue])
    keys: Sequence[Fingerprint] = ()


class Collector:
    """Reads both sides of accounts. A `Collection` reads up to `concurrency` at a time.

    `account_seconds` is the deadline of one account.
    """

    def __init__(
        self,
        targets: Mapping[str, SecretTarget],
        fingerprinter: Fingerprinter,
        translator: FailureTranslator,
        *,
        concurrency: int,
        account_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.targets = targets
        self._fingerprinter = fingerprinter
        self._translator = translator
        self.concurrency = concurrency
        slots = max(_MIN_SLOTS, concurrency // max(1, len(targets)))
        self._vault_slots = {vault: asyncio.Semaphore(slots) for vault in targets}
        self._account_seconds = account_seconds
        self._clock = clock
        # A listing of a vault can confirm cached secrets, which then need no read each.
        self.listings: dict[str, CacheValidation] = {}

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
                record = self._record(error, "collect", work_item.account)
            return all_failed(work_item, record)

    def plan_failed(self, account: Collected, error: Exception) -> Collected:
        """`account` as one that failed, because planning it raised `error`."""
        record = self._record(error, "plan", account.account)
        failed = [_failed(observed.item, record) for observed in account.observed]
        return Collected(account.account, failed=(*account.failed, *failed), keys=account.keys)

    async def _both_sides(self, work_item: WorkItem) -> Collected:
        # Outcomes instead of exceptions: a vault's failure says nothing about the keys, and neither cancels the other.
        keys, replies = await asyncio.gather(
            work_item.source.get_keys(),
            asyncio.gather(*(self._stored(item) for item in work_item.items), return_exceptions=True),
            return_exceptions=True,
        )
        if isinstance(replies, BaseException):
            raise replies  # the account is cancelled
        if isinstance(keys, BaseException):
            return all_failed(work_item, self._record(keys, "listKeys", work_item.account))
        prints = {name: self._fingerprinter.of(value) for name, value in keys.values.items()}
        observed: list[Observed] = []
        failed: list[Change] = []
        values: dict[ItemRef, SecretValue] = {}
        for item, reply in zip(work_item.items, replies, strict=True):
            ref = item.ref
            if ref.key in keys.refused:
                failed.append(Change(ref, "refused", reason=keys.refused[ref.key]))
            elif isinstance(reply, BaseException):
                failed.append(_failed(item, self._record(reply, "getSecret", ref.vault)))
            else:
                one = Observed(item, prints, *reply)
                observed.append(one)
                # A secret that has its key needs no value, even if its metadata must be written.
                if not isinstance(one.current, StoredSecret) or one.current.fingerprint != one.desired:
                    values[ref] = keys.values[ref.key]
        if any(map(may_need_version, observed)):
            observed = await asyncio.gather(*(with_history(self.targets[o.item.ref.vault], o) for o in observed))
        return Collected(work_item.account, observed, failed, values, tuple(prints.values()))

    async def _stored(self, item: Item) -> tuple[Observation, float]:
        """The stored secret, and the monotonic time before it was read."""
        vault, name = item.ref.vault, item.ref.secret
        listing = self.listings.get(vault)
        cached = await listing.confirmed(name) if listing is not None else None
        if cached is not None:
            return cached
        async with self._vault_slots[vault]:
            at = self._clock()
            return await self.targets[vault].read(name), at

    def _record(self, error: BaseException, operation: str, scope: str) -> FailureRecord:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling():
            return FailureRecord(kind="internal", summary="another caller cancelled the shared call")
        if not isinstance(error, Exception):
            raise error  # the run is being cancelled
        return self._translator.record(error, operation=operation, scope=scope)


class Collection:
    """Work items being collected, few at a time, divided among their groups. Use as an async context manager.

    After `patience_seconds` an account no longer counts against the concurrency: however many hang, the others get their turn.
    `on_collected` is called for each account that has responded or failed. `done` is done when all have, or were given up.
    `fault` is an error that `on_collected` raised.
    """

    def __init__(
        self,
        collector: Collector,
        work_items: Sequence[WorkItem],
        patience_seconds: float,
        on_collected: Callable[[Collected], None],
    ) -> None:
        self._collector = collector
        self._patience_seconds = patience_seconds
        self._on_collected = on_collected
        self._pending = dict.fromkeys(work_items)
        self._workers: set[asyncio.Task[None]] = set()
        self.fault: Exception | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        names: dict[str, list[str]] = {}
        queues: dict[Hashable, deque[WorkItem]] = {}
        for work_item in work_items:
            queues.setdefault(work_item.group, deque()).append(work_item)
            for item in work_item.items:
                names.setdefault(item.ref.vault, []).append(item.ref.secret)
        collector.listings = {vault: collector.targets[vault].validate_by_listing(names[vault]) for vault in names}
        for queue in queues.values():
            for _ in range(min(len(queue), max(_MIN_SLOTS, collector.concurrency // len(queues)))):
                self._start_worker(queue)
        self._check_done()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pending.clear()
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        await asyncio.gather(*(listing.close() for listing in self._collector.listings.values()))

    def give_up(self) -> Sequence[WorkItem]:
        """Gives up the work items that have not responded, and returns them."""
        given_up = list(self._pending)
        self._pending.clear()
        self._check_done()
        return given_up

    def _check_done(self) -> None:
        if not self._pending and not self.done.done():
            self.done.set_result(None)

    def _start_worker(self, queue: deque[WorkItem]) -> None:
        worker = asyncio.create_task(self._work(queue), name="collect")
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    async def _work(self, queue: deque[WorkItem]) -> None:
        """Collects the accounts of `queue` one by one. If one takes long, another worker continues in its place."""
        loop, replaced = asyncio.get_running_loop(), False

        def replace_worker() -> None:
            nonlocal replaced
            replaced = True
            self._start_worker(queue)

        while queue and self._pending and not replaced:
            timer = loop.call_later(self._patience_seconds, replace_worker)
            try:
                await self._collect(queue.popleft())
            finally:
                timer.cancel()

    async def _collect(self, work_item: WorkItem) -> None:
        try:
            collected = await self._collector.collect(work_item)
            if work_item in self._pending:  # not given up meanwhile
                self._on_collected(collected)
        except Exception as error:  # noqa: BLE001  # the others must still be collected
            self.fault = self.fault or error
        finally:
            self._pending.pop(work_item, None)
            self._check_done()


def all_failed(work_item: WorkItem, record: FailureRecord) -> Collected:
    """A work item of which every item failed with `record`."""
    return Collected(work_item.account, failed=[_failed(item, record) for item in work_item.items])


def _failed(item: Item, record: FailureRecord) -> Change:
    return Change(item.ref, "failed", reason=record.summary, error=record)
