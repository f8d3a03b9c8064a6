"""Apply: one result per item. One failure never stops the rest, and writes in progress may finish after a stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Final

from keysync.failures import FailureTranslator
from keysync.names import fold
from keysync.sync.limits import Blocked
from keysync.sync.locks import SecretLocks
from keysync.sync.model import BAD, REMOVALS, Change, Plan, Result
from keysync.sync.results import planned, unwritten
from keysync.sync.waiting import wait_for
from keysync.sync.write import ApplyInputs, SecretWriter
from keysync.targets.interface import SecretTarget
from keysync.tracing import SECRET, span

# Longer than a run takes from its first read to its last write.
_REMEMBERED_SECONDS: Final = 600.0
_KEPT: Final = "not all secrets of its account were written in this run: it is kept until they are"
_NOW: Final = partial(datetime.now, UTC)
_INTERRUPTED: Final = "interrupted before it was written"


class Applier:
    """Writes plans, up to `concurrency` items per vault at a time.

    Once `stop` is set it starts no more writes, and those in progress have `grace_seconds` to finish.
    """

    def __init__(
        self,
        targets: Mapping[str, SecretTarget],
        translator: FailureTranslator,
        *,
        concurrency: int,
        stop: asyncio.Event,
        grace_seconds: float,
        locks: SecretLocks | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _NOW,
    ) -> None:
        # Separate slots for each vault: one that hangs takes none from the others.
        self._slots = {vault: asyncio.Semaphore(concurrency) for vault in targets}
        self._stop = stop
        self._grace_seconds = grace_seconds
        self._locks = locks or SecretLocks()
        self._clock = clock
        self._writer = SecretWriter(targets, translator, self._locks, clock=clock, now=now)

    async def apply(
        self,
        plan: Plan,
        inputs: ApplyInputs,
        blocked: Blocked | None = None,
        *,
        dry_run: bool = False,
        on_result: Callable[[Result], None] = lambda _result: None,
    ) -> Sequence[Result]:
        """Writes `plan`, or nothing if it is `blocked` or a dry run. Changes that need `--accept` are written only if accepted.

        `on_result` is called with each result as soon as it is there, so that a slow vault delays no other. A write that was
        cancelled is `unknown`. Removals come last, and only for accounts whose writes all succeeded: a renamed secret is
        removed once the secret with the new name is there.
        """
        if blocked is not None or dry_run:
            results = unwritten(plan, blocked)
            for result in results:
                on_result(result)
            return results
        for result in plan.in_sync:
            on_result(result)
        to_write = [
            change for change in plan.writes if not change.read_only and (inputs.accepted or not change.needs_accept)
        ]
        done = {change.ref: planned(change) for change in plan.changes}
        for change in to_write:
            del done[change.ref]
        for result in done.values():
            on_result(result)

        async def write(change: Change) -> None:
            kept = change.kind in REMOVALS and fold(change.ref.account) in incomplete
            result = Result(change.ref, "skipped", reason=_KEPT, verdict=change.verdict) if kept else None
            done[change.ref] = result or await self._write(change, inputs)
            on_result(done[change.ref])

        incomplete: set[str] = set()
        removals = [change for change in to_write if change.kind in REMOVALS]
        for changes in ([change for change in to_write if change.kind not in REMOVALS], removals):
            await self._finish([asyncio.create_task(write(change)) for change in changes])
            incomplete = {fold(ref.account) for ref, result in done.items() if _is_incomplete(result)}
        return (*plan.in_sync, *(done[change.ref] for change in plan.changes))

    async def _finish(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        try:
            await wait_for(tasks, self._stop, None)
            pending = [task for task in tasks if not task.done()]
            if pending:
                await asyncio.wait(pending, timeout=self._grace_seconds)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, change: Change, inputs: ApplyInputs) -> Result:
        result = Result(change.ref, "skipped", reason=_INTERRUPTED)
        try:
            async with self._slots[change.ref.vault], self._locks.writing(change.ref):
                if not self._stop.is_set():
                    with span(SECRET, _attributes(change)):
                        result = await self._writer.write(change, inputs)
                    at = self._clock()
                    self._locks.touched(change.ref, at, forget_before=at - _REMEMBERED_SECONDS)
        except asyncio.CancelledError:
            pass  # it was still waiting for its slot
        return replace(result, verdict=change.verdict)


def _is_incomplete(result: Result) -> bool:
    return result.outcome in BAD or (result.outcome == "skipped" and result.verdict != "disabled")


def _attributes(change: Change) -> dict[str, str]:
    ref = change.ref
    named = {"account": ref.account, "key": ref.key, "vault": ref.vault, "secret": ref.secret, "change": change.kind}
    return {f"keysync.{name}": value for name, value in named.items()}
