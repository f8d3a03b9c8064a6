"""Collect: reads the current keys and the stored secrets of each account, many accounts at a time."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from keysync.calls import ACCOUNT_TIMEOUT_HINT
from keysync.failures import CallFailed, FailureRecord, FailureTranslator
from keysync.secret.fingerprint import Fingerprint, Fingerprinter
from keysync.secret.value import SecretValue
from keysync.sources.interface import AccountKeys
from keysync.sync.items import WorkItem
from keysync.sync.model import Change, Item, ItemRef, Observed
from keysync.sync.ownership import is_managed
from keysync.targets.interface import CacheValidation, History, Observation, SecretTarget, StoredSecret
from keysync.tracing import ACCOUNT, span

_MIN_SLOTS: Final = 4
# Above this number, or above half of `changes_per_day`, the count in the tags is not exact enough: the versions are listed.
_COUNTED_IN_TAGS: Final = 200


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


@dataclass(slots=True)
class Collector:
    """Reads both sides of the accounts of one run, up to `concurrency` at a time. `account_seconds` is the deadline of one."""

    targets: Mapping[str, SecretTarget]
    fingerprinter: Fingerprinter
    translator: FailureTranslator
    concurrency: int
    account_seconds: float
    clock: Callable[[], float] = time.monotonic
    _vault_slots: dict[str, asyncio.Semaphore] = field(init=False)
    # A listing of a vault can confirm cached secrets, which then need no read each.
    _listings: dict[str, CacheValidation] = field(default_factory=dict[str, CacheValidation])

    def __post_init__(self) -> None:
        """Gives each vault its slots, so that one that hangs takes none from the others."""
        slots = max(_MIN_SLOTS, self.concurrency // max(1, len(self.targets)))
        self._vault_slots = {vault: asyncio.Semaphore(slots) for vault in self.targets}

    async def collect_all(
        self,
        work_items: Sequence[WorkItem],
        patience_seconds: float,
        on_collected: Callable[[WorkItem, Collected], None],
    ) -> None:
        """Collects `work_items`, and calls `on_collected` for each. Their groups share the concurrency.

        After `patience_seconds` an account no longer counts against it: however many hang, the others get their turn. Raises
        the first error of `on_collected`, after all have been collected.
        """
        names: defaultdict[str, list[str]] = defaultdict(list)
        queues: defaultdict[Hashable, deque[WorkItem]] = defaultdict(deque)
        for work_item in work_items:
            queues[work_item.group].append(work_item)
            for item in work_item.items:
                names[item.ref.vault].append(item.ref.secret)
        faults: list[Exception] = []

        async def collect(work_item: WorkItem) -> None:
            try:
                on_collected(work_item, await self.collect(work_item))
            except Exception as error:  # noqa: BLE001  # the others must still be collected
                faults.append(error)

        async def work(queue: deque[WorkItem]) -> None:
            while queue:
                await asyncio.wait({tasks.create_task(collect(queue.popleft()))}, timeout=patience_seconds)

        self._listings = {vault: self.targets[vault].validate_by_listing(names[vault]) for vault in names}
        try:
            async with asyncio.TaskGroup() as tasks:
                for queue in queues.values():
                    for _ in range(min(len(queue), max(_MIN_SLOTS, self.concurrency // len(queues)))):
                        tasks.create_task(work(queue))
        finally:
            await asyncio.gather(*(listing.close() for listing in self._listings.values()))
        if faults:
            raise faults[0]

    async def collect(self, work_item: WorkItem) -> Collected:
        """Reads both sides of every item. Never raises for a failure of Azure."""
        with span(ACCOUNT, {"keysync.account": work_item.account}):
            try:
                async with asyncio.timeout(self.account_seconds):
                    return await self._both_sides(work_item)
            except TimeoutError:
                summary = f"the account was not done within {self.account_seconds:g} s (timeouts.account)"
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
        calls: list[Awaitable[Any]] = [work_item.source.get_keys(), *map(self._stored, work_item.items)]
        # Outcomes instead of exceptions: a vault's failure says nothing about the keys, and neither cancels the other.
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        keys: AccountKeys | BaseException = outcomes[0]
        replies: list[tuple[Observation, float] | BaseException] = outcomes[1:]
        if isinstance(keys, BaseException):
            return all_failed(work_item, self._record(keys, "listKeys", work_item.account))
        prints = {name: self.fingerprinter.of(value) for name, value in keys.values.items()}
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
                if not one.has_key:
                    values[ref] = keys.values[ref.key]
        if any(map(may_need_version, observed)):
            observed = await asyncio.gather(*(with_history(self.targets[o.item.ref.vault], o) for o in observed))
        return Collected(work_item.account, observed, failed, values, tuple(prints.values()))

    async def _stored(self, item: Item) -> tuple[Observation, float]:
        """The stored secret, and the monotonic time before it was read."""
        vault, name = item.ref.vault, item.ref.secret
        listing = self._listings.get(vault)
        cached = await listing.confirmed(name) if listing is not None else None
        if cached is not None:
            return cached
        async with self._vault_slots[vault]:
            at = self.clock()
            return await self.targets[vault].read(name), at

    def _record(self, error: BaseException, operation: str, scope: str) -> FailureRecord:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling():
            return FailureRecord(kind="internal", summary="another caller cancelled the shared call")
        if not isinstance(error, Exception):
            raise error  # the run is being cancelled
        return self.translator.record(error, operation=operation, scope=scope)


def may_need_version(observed: Observed) -> bool:
    """Whether the plan may write a new version of an existing secret. Only then is its history read."""
    return not observed.has_key and is_managed(observed)


async def with_history(target: SecretTarget, observed: Observed) -> Observed:
    """`observed` with its history, if it may need a version and the history can be read.

    An identity without permission to list versions still keeps keys in sync (docs/safety.md).
    """
    if not isinstance(observed.current, StoredSecret) or not may_need_version(observed):
        return observed
    per_day = observed.item.policy.changes_per_day
    at_most = History(_COUNTED_IN_TAGS, _COUNTED_IN_TAGS if per_day is None else (per_day - 1) // 2)
    try:
        history = await target.history(observed.item.ref.secret, observed.current, at_most=at_most)
    except CallFailed:
        return observed
    return replace(observed, history=history)


def all_failed(work_item: WorkItem, record: FailureRecord) -> Collected:
    """A work item of which every item failed with `record`."""
    return Collected(work_item.account, failed=[_failed(item, record) for item in work_item.items])


def _failed(item: Item, record: FailureRecord) -> Change:
    return Change(item.ref, "failed", reason=record.summary, error=record)
