"""Apply: one result per item. One failure never stops the rest, and writes in progress may finish after a stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from keysync.failures import FailureTranslator
from keysync.names import fold
from keysync.sync.limits import Blocked
from keysync.sync.locks import SecretLocks
from keysync.sync.model import BAD, REMOVALS, WRITES, Change, Plan, Result
from keysync.sync.waiting import wait_for
from keysync.sync.write import ApplyInputs, SecretWriter
from keysync.targets.interface import SecretTarget
from keysync.tracing import SECRET, span

_MIN_SLOTS: Final = 4
_KEPT: Final = "not all secrets of its account were written in this run: it is kept until they are"
_INTERRUPTED: Final = "interrupted before it was written"


@dataclass(slots=True)
class Applier:
    """Writes plans, `concurrency` items at a time, divided among the vaults; at least four each.

    Once `stop` is set it starts no more writes, and those in progress have `grace_seconds` to finish. `now` is UTC.
    """

    targets: Mapping[str, SecretTarget]
    translator: FailureTranslator
    locks: SecretLocks
    concurrency: int
    stop: asyncio.Event
    grace_seconds: float
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _slots: dict[str, asyncio.Semaphore] = field(init=False)
    _writer: SecretWriter = field(init=False)

    def __post_init__(self) -> None:
        """Gives each vault its slots, so that one that hangs takes none from the others."""
        # Each slot opens a connection, which costs as much CPU time as several requests: with 64 for each of four vaults, a
        # process that writes every key made 320.
        slots = max(min(self.concurrency, _MIN_SLOTS), self.concurrency // max(1, len(self.targets)))
        self._slots = {vault: asyncio.Semaphore(slots) for vault in self.targets}
        self._writer = SecretWriter(self.targets, self.translator, self.locks, self.now)

    async def apply(
        self,
        plan: Plan,
        inputs: ApplyInputs,
        blocked: Blocked | None = None,
        *,
        dry_run: bool = False,
        on_result: Callable[[Result], None] = lambda _result: None,
    ) -> None:
        """Writes `plan`, or nothing if it is `blocked` or a dry run. Changes that need `--accept` are written only if accepted.

        `on_result` is called with each result as soon as it is there, so that a slow vault delays no other. A write that was
        cancelled is `unknown`. Removals come last, and only for accounts whose writes all succeeded: a renamed secret is
        removed once the secret with the new name is there.
        """
        incomplete: set[str] = set()

        def done(result: Result) -> None:
            if result.outcome in BAD or (result.outcome == "skipped" and result.verdict != "disabled"):
                incomplete.add(fold(result.ref.account))
            on_result(result)

        async def write(change: Change) -> None:
            done(await self._write(change, inputs))

        to_write: list[Change] = []
        for change in plan.changes:
            may_write = change.kind in WRITES and not change.read_only and (inputs.accepted or not change.needs_accept)
            if may_write and blocked is None and not dry_run:
                to_write.append(change)
                continue
            result = change.unwritten()
            if blocked is not None and not change.read_only and change.kind in WRITES:
                result = replace(result, outcome=blocked.outcome, reason=blocked.reason)
            done(result)
        removals = [change for change in to_write if change.kind in REMOVALS]
        async with self._writer.listings(to_write):
            writes = [change for change in to_write if change.kind not in REMOVALS]
            await self._finish([asyncio.create_task(write(change)) for change in writes])
        kept = [change for change in removals if fold(change.ref.account) in incomplete]
        for change in kept:
            on_result(Result(change.ref, "skipped", reason=_KEPT, verdict=change.verdict))
        await self._finish([asyncio.create_task(write(change)) for change in removals if change not in kept])

    async def _finish(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        try:
            await wait_for(tasks, self.stop, None)
            pending = [task for task in tasks if not task.done()]
            if pending:
                await asyncio.wait(pending, timeout=self.grace_seconds)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, change: Change, inputs: ApplyInputs) -> Result:
        result, ref = Result(change.ref, "skipped", reason=_INTERRUPTED), change.ref
        with suppress(asyncio.CancelledError):  # it was still waiting for its slot
            async with self._slots[ref.vault], self.locks.lock(ref):
                if not self.stop.is_set():
                    with span(
                        SECRET,
                        {
                            "keysync.account": ref.account,
                            "keysync.key": ref.key,
                            "keysync.vault": ref.vault,
                            "keysync.secret": ref.secret,
                            "keysync.change": change.kind,
                        },
                    ):
                        result = await self._writer.write(change, inputs)
                    self.locks.touched(ref)
        return replace(result, verdict=change.verdict)
