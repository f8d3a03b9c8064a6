"""Apply: one result an item; one failure never stops the rest, and what is under way when the end comes may finish."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from keysync.azure.errors import AzureFailure, FailureRecord, FailureTranslator
from keysync.secret.value import SecretValue
from keysync.sync.model import DONE, WRITES, Change, ItemRef, Outcome, Plan, Result
from keysync.targets.errors import WriteUnknown
from keysync.targets.interface import Absent, Existing, SecretTarget

_CHANGED = "somebody changed the secret since it was compared: not written, the next pass judges it anew"
_INTERRUPTED = "interrupted before it was written"


class Applier:
    """Writes plans, `concurrency` items of a vault at a time, until `stop` is set; then grants `grace_seconds` to writes under way."""

    def __init__(
        self,
        targets: Mapping[str, SecretTarget],
        translator: FailureTranslator,
        *,
        concurrency: int,
        stop: asyncio.Event,
        grace_seconds: float,
    ) -> None:
        self._targets = targets
        self._translator = translator
        # One set of slots a vault: one that hangs takes no place of another's.
        self._slots = {vault: asyncio.Semaphore(concurrency) for vault in targets}
        self._stop = stop
        self._grace_seconds = grace_seconds

    async def apply(self, plan: Plan, values: Mapping[ItemRef, SecretValue]) -> tuple[Result, ...]:
        """Writes what is to be written. A write that had to be cut off is `unknown`."""
        to_write = [change for change in plan.writes if not change.read_only]
        tasks = {change.ref: asyncio.create_task(self._write(change, values[change.ref])) for change in to_write}
        await self._finish(list(tasks.values()))
        return tuple(tasks[change.ref].result() if change.ref in tasks else planned(change) for change in plan.changes)

    async def _finish(self, tasks: Sequence[asyncio.Task[Result]]) -> None:
        if not tasks:
            return
        everything = asyncio.create_task(_wait_for(tasks))
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((everything, stopped), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait((everything,), timeout=self._grace_seconds)
        finally:
            for task in (stopped, everything, *tasks):
                task.cancel()
            await asyncio.gather(stopped, everything, *tasks, return_exceptions=True)

    async def _write(self, change: Change, value: SecretValue) -> Result:
        try:
            await self._slots[change.ref.vault].acquire()
        except asyncio.CancelledError:
            return Result(change.ref, "skipped", reason=_INTERRUPTED)
        try:
            if self._stop.is_set():
                return Result(change.ref, "skipped", reason=_INTERRUPTED)
            return await self._attempt(change, value)
        finally:
            self._slots[change.ref.vault].release()

    async def _attempt(self, change: Change, value: SecretValue) -> Result:
        try:
            if not await self._is_as_observed(change):
                return Result(change.ref, "refused", reason=_CHANGED)
            version = await self._send(change, value)
        except asyncio.CancelledError:
            return Result(
                change.ref,
                "unknown",
                reason="cut off while the write was under way: the next pass will see",
            )
        except Exception as error:  # noqa: BLE001  # one item's failure is one item's
            return self._failed(change, error)
        return Result(change.ref, DONE[change.kind], version=version, reason=change.reason)

    async def _is_as_observed(self, change: Change) -> bool:
        """Whether the vault still shows what the plan was made from: what was ours to write may be somebody's by now."""
        match await self._targets[change.ref.vault].read(change.ref.secret):
            case Existing(version=version):
                return version == change.before
            case Absent():
                return change.before is None
            case _:
                return False

    async def _send(self, change: Change, value: SecretValue) -> str | None:
        target = self._targets[change.ref.vault]
        if change.metadata is None:
            raise AssertionError(f"a {change.kind} without metadata")
        if change.kind == "adopt":
            await target.tag(change.ref.secret, change.before or "", change.metadata)
            return change.before
        return await target.write(change.ref.secret, value, change.metadata, before=change.before)

    def _failed(self, change: Change, error: Exception) -> Result:
        record = self._record(error, change)
        outcome: Outcome = "unknown" if isinstance(error, WriteUnknown) else "failed"
        return Result(change.ref, outcome, reason=record.summary, error=record)

    def _record(self, error: Exception, change: Change) -> FailureRecord:
        if isinstance(error, AzureFailure):
            return error.record
        return self._translator.record(error, operation="setSecret", scope=change.ref.vault)


def planned(change: Change) -> Result:
    """The result of a change that is not carried out: what it would be, or why it is nothing to carry out."""
    version = change.before if change.kind == "unchanged" else None
    return Result(change.ref, change.kind, version=version, reason=change.reason, error=change.error)


def not_written(plan: Plan, reason: str) -> tuple[Result, ...]:
    """The results of a plan of which nothing was written, for `reason`."""
    return tuple(
        Result(change.ref, "skipped", reason=reason) if change.kind in WRITES else planned(change)
        for change in plan.changes
    )


async def _wait_for(tasks: Sequence[asyncio.Task[Result]]) -> bool:
    # Unlike gather, its being cancelled leaves the tasks alone.
    await asyncio.wait(tasks)
    return True
