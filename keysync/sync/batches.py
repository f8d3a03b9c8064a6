"""Batches: accounts written together. The first has the accounts that respond in time, further ones the slow accounts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from keysync.failures import FailureRecord
from keysync.sync.collect import Collected, Collection, Collector, all_failed
from keysync.sync.items import WorkItem
from keysync.sync.model import WRITES, Change, Observed, Plan, Result, in_order
from keysync.sync.orphans import SEARCH_TOO_SLOW, OrphanFindings
from keysync.sync.plan import make_plan
from keysync.sync.results import planned
from keysync.sync.shared_keys import SharedKeys, refused
from keysync.sync.waiting import wait_for
from keysync.sync.write import ApplyInputs

_INTERRUPTED: Final = FailureRecord(kind="timeout", summary="interrupted before the account answered")


@dataclass(slots=True)
class Batch:
    """Accounts to write together, and the orphans found.

    In-sync accounts keep only their results; in a large fleet these are nearly all. `writing` are the accounts with something
    to write. `untrusted` are accounts whose keys must not be written, with the reason; it may grow during the writing.
    """

    changes: list[Change] = field(default_factory=list[Change])
    in_sync: list[Result] = field(default_factory=list[Result])
    writing: list[Collected] = field(default_factory=list[Collected])
    orphans: OrphanFindings = field(default_factory=OrphanFindings)
    untrusted: Mapping[str, str] = field(default_factory=dict[str, str])

    def add(self, account: Collected, now: datetime, *, only_unmanaged: bool = False) -> None:
        """Plans one more account at `now` (UTC)."""
        changes: list[Change] = []
        for change in make_plan(account.observed, now).changes:
            if change.kind == "unchanged" and change.managed:
                self.in_sync += () if only_unmanaged else (planned(change),)
            elif change.unmanaged or change.error or not only_unmanaged:
                changes.append(change)
        self.changes += changes
        if any(change.kind in WRITES for change in changes):
            self.writing.append(account)

    def refuse(self, untrusted: Mapping[str, str]) -> None:
        """Refuses every change of the accounts in `untrusted`, for the reasons given."""
        in_sync = [result for result in self.in_sync if result.ref.account in untrusted]
        self.in_sync = [result for result in self.in_sync if result.ref.account not in untrusted]
        self.changes += [Change(result.ref, "unchanged", before=result.version, managed=True) for result in in_sync]
        self.changes = [refused(change, untrusted) for change in self.changes]
        self.writing = [account for account in self.writing if account.account not in untrusted]

    @property
    def has_accounts(self) -> bool:
        """Whether it has anything but orphans."""
        return bool(self.changes or self.in_sync or self.writing)

    def plan(self) -> Plan:
        """The changes of its accounts, and the orphans to remove."""
        return Plan(in_order((*self.changes, *self.orphans.changes)), tuple(self.in_sync))

    def inputs(self, *, accepted: bool = False) -> ApplyInputs:
        """What writing the plan needs beside the plan itself."""
        observed = (item for account in self.writing for item in account.observed)
        by_ref = {item.item.ref: item for item in observed if isinstance(item, Observed)}
        values = {ref: value for account in self.writing for ref, value in account.values.items()}
        return ApplyInputs(by_ref, values, accepted, self.untrusted)


class Batches:
    """Plans accounts as they respond, and groups them into batches."""

    def __init__(
        self, collector: Collector, stop: asyncio.Event, *, only_unmanaged: bool, clock: Callable[[], datetime]
    ) -> None:
        self._collector = collector
        self._stop = stop
        self._only_unmanaged = only_unmanaged
        self._clock = clock
        self._batch = Batch()
        self._shared_keys = SharedKeys()

    async def collect(
        self,
        work_items: Sequence[WorkItem],
        search: Callable[[], Coroutine[Any, Any, OrphanFindings]] | None,
        seconds: float | None,
        *,
        on_account: Callable[[str], None],
    ) -> AsyncIterator[Batch]:
        """Yields a first batch after at most `seconds`, with the orphans that `search` found; then batches of slow accounts.

        A set `stop` ends the waiting: the last batch then has a failure for each account that has not responded.
        `on_account` is called with the ARM id of each account that has responded or failed.
        """

        def add(account: Collected) -> None:
            self._add(account)
            on_account(account.account)

        collection = self._collector.begin(work_items, add)
        orphans = [] if search is None else [asyncio.create_task(search(), name="orphans")]
        try:
            await wait_for([*collection.tasks, *orphans], self._stop, seconds)
            findings = [task.result() if task.done() else SEARCH_TOO_SLOW for task in orphans]
            # No local name: it would keep the key values of a written batch while the slow accounts are collected.
            yield self._take(collection, *findings)
            while not self._stop.is_set() and not collection.is_over:
                await wait_for(collection.tasks, self._stop, seconds)
                if self._batch.has_accounts:
                    yield self._take(collection)
            # If `stop` was set while the previous batch was written, the rest still needs its results.
            last = self._take(collection)
            if last.has_accounts:
                yield last
            if collection.fault is not None:
                raise collection.fault
        finally:
            for task in orphans:
                task.cancel()
            await asyncio.gather(*orphans, return_exceptions=True)
            await collection.close()

    def _add(self, account: Collected) -> None:
        try:
            self._plan(account)
        except Exception as error:  # noqa: BLE001  # a bug that one account triggers must not stop the others
            self._plan(self._collector.plan_failed(account, error))
        self._shared_keys.add(account.account, account.keys)

    def _plan(self, account: Collected) -> None:
        self._batch.add(account, self._clock(), only_unmanaged=self._only_unmanaged)

    def _take(self, collection: Collection, orphans: OrphanFindings | None = None) -> Batch:
        """The accounts planned since the last call. After a stop, also a failure for each account that has not responded."""
        if self._stop.is_set():
            for item in collection.give_up():
                self._plan(all_failed(item, _INTERRUPTED))
        batch, self._batch = self._batch, Batch()
        batch.orphans = orphans or batch.orphans
        batch.untrusted = self._shared_keys.untrusted
        if batch.untrusted:
            batch.refuse(batch.untrusted)
        return batch
