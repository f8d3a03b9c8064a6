"""Apply: one result an item; one failure never stops the rest, and what is under way when the end comes may finish."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from keysync.calls import READ_BARRIER, ReadBarrier
from keysync.failures import CallFailed, FailureRecord, FailureTranslator, StaleRead
from keysync.names import fold
from keysync.secret.value import SecretValue
from keysync.sync.history import with_history
from keysync.sync.locks import SecretLocks
from keysync.sync.messages import changed_meanwhile, orphan_changed_meanwhile
from keysync.sync.model import BAD, DONE, REMOVALS, WRITES, Change, ChangeKind, ItemRef, Observed, Outcome, Plan, Result
from keysync.sync.orphans import is_ours_for
from keysync.sync.plan import judge
from keysync.sync.waiting import wait_for
from keysync.targets.errors import NotKept, ReadFromBefore, WriteUnknown
from keysync.targets.interface import Disabled, Observation, SecretTarget, StoredSecret
from keysync.tracing import NO_TRACER, SECRET, Tracer

FRESH_SECONDS: Final = 10.0
"""The oldest observation that a write may rest on."""

# Longer than a run takes from its first look to its last write.
_REMEMBERED_SECONDS: Final = 600.0
_READ_ONLY: Final = "read_only is set here: not written"
_SPARED: Final = "its account's other secrets were not all written in this run: it stays until they are"
_INTERRUPTED: Final = "interrupted before it was written"
_CUT_OFF: Final = "cut off while the write was under way: the next run will see"
_CAME_BACK: Final[Mapping[ChangeKind, ChangeKind]] = {"create": "update", "recover": "recover"}
# Longer than an account's two sides take to answer.
_LONG_BEFORE: Final = timedelta(minutes=2)
_ENOUGH_ROUNDS: Final = 3


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class ApplyInputs:
    """What the plan was made from and a write needs: observations, and values (masked in every printed form).

    `accepted` says that a person has accepted the plan with all that is held in it. `distrusted` are accounts whose keys must not
    be written any more, with the reason; it may grow while the plan is carried out.
    """

    seen: Mapping[ItemRef, Observed] = field(default_factory=dict)
    values: Mapping[ItemRef, SecretValue] = field(default_factory=dict)
    accepted: bool = False
    distrusted: Mapping[str, str] = field(default_factory=dict)


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
        locks: SecretLocks | None = None,
        tracer: Tracer = NO_TRACER,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._targets = targets
        self._translator = translator
        # One set of slots a vault: one that hangs takes no place of another's.
        self._slots = {vault: asyncio.Semaphore(concurrency) for vault in targets}
        self._stop = stop
        self._grace_seconds = grace_seconds
        self._locks = locks or SecretLocks()
        self._tracer = tracer
        self._clock = clock
        self._now = now

    async def apply(
        self,
        plan: Plan,
        material: ApplyInputs,
        *,
        tell: Callable[[Result], None] = lambda _result: None,
    ) -> tuple[Result, ...]:
        """Writes what is to be written, what is held only if it was accepted. A write that had to be cut off is `unknown`.

        `tell` is given each result as soon as there is one, so that nobody waits for another's slow vault. Removals come
        last, and only of accounts whose writes all succeeded: a renamed secret goes once its new name stands.
        """
        for result in plan.settled:
            tell(result)
        to_write = [change for change in plan.writes if not change.read_only and (material.accepted or not change.held)]
        done = {change.ref: planned(change) for change in plan.changes}
        for change in to_write:
            del done[change.ref]
        for result in done.values():
            tell(result)

        async def write(change: Change) -> None:
            excluded = change.kind in REMOVALS and fold(change.ref.account) in behind
            result = Result(change.ref, "skipped", reason=_SPARED, verdict=change.verdict) if excluded else None
            done[change.ref] = result or await self._write(change, material)
            tell(done[change.ref])

        behind: set[str] = set()
        removals = [change for change in to_write if change.kind in REMOVALS]
        for those in ([change for change in to_write if change.kind not in REMOVALS], removals):
            await self._finish([asyncio.create_task(write(change)) for change in those])
            behind = {fold(ref.account) for ref, result in done.items() if _is_behind(result)}
        return (*plan.settled, *(done[change.ref] for change in plan.changes))

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

    async def _write(self, change: Change, material: ApplyInputs) -> Result:
        result = Result(change.ref, "skipped", reason=_INTERRUPTED)
        try:
            async with self._slots[change.ref.vault], self._locks.writing(change.ref):
                if not self._stop.is_set():
                    with self._tracer.span(SECRET, _attributes(change)):
                        result = await self._attempt(change, material)
                    at = self._clock()
                    self._locks.touched(change.ref, at, forget_before=at - _REMEMBERED_SECONDS)
        except asyncio.CancelledError:
            pass  # it was still waiting for its turn
        return replace(result, verdict=change.verdict)

    async def _attempt(self, change: Change, material: ApplyInputs) -> Result:
        try:
            for number in range(_ENOUGH_ROUNDS - 1):
                with suppress(StaleRead):
                    return await self._once(change, material, again=number > 0)
            return await self._once(change, material, again=True)
        except asyncio.CancelledError:
            return Result(change.ref, "unknown", reason=_CUT_OFF)
        except NotKept as failure:
            # The value is right. Only what the secret is marked by must be kept for it to be keysync's.
            outcome: Outcome = "refused" if change.kind == "adopt" else "skipped"
            reason = f"{failure.record.summary}; {failure.record.hint}"
            return Result(change.ref, outcome, version=change.before, reason=reason)
        except Exception as error:  # noqa: BLE001  # one item's failure is one item's
            return self._failed(change, error)

    async def _once(self, change: Change, material: ApplyInputs, *, again: bool) -> Result:
        """One look, where one is due or it is done `again`, and the write that rests on it. Raises Outdated where it could not be sent in time."""
        if change.kind in REMOVALS:
            return await self._remove(change)
        if change.ref.account in material.distrusted:
            return Result(change.ref, "refused", reason=material.distrusted[change.ref.account])
        compared = material.seen[change.ref]
        overtaken = self._locks.touched_since(change.ref, compared.at)
        if again or overtaken or not self._is_fresh(change, compared):
            # A deleted namesake need not be looked for again: Key Vault itself refuses to write over one.
            seen = await self._look(compared, deleted=change.kind != "create")
        else:
            seen = compared
        return await self._carry_out(change, seen, material, overtaken=overtaken)

    @contextmanager
    def _resting_on(self, at: float, *, once: bool = False) -> Iterator[None]:
        """Changes within are sent only while the look at `at` is fresh, and with `once` a single time each."""
        token = READ_BARRIER.set(ReadBarrier(at + FRESH_SECONDS, self._clock, once=once))
        try:
            yield
        finally:
            READ_BARRIER.reset(token)

    def _is_fresh(self, change: Change, seen: Observed) -> bool:
        """Whether the observation is young enough to write upon.

        A name that was free is always looked at again: nothing but that look guards what somebody has just put there.
        """
        return change.kind != "create" and self._clock() - seen.at <= FRESH_SECONDS

    async def _look(self, seen: Observed, *, deleted: bool = True) -> Observed:
        at = self._clock()
        stored = await self._targets[seen.item.ref.vault].read(seen.item.ref.secret, deleted=deleted)
        return replace(seen, stored=stored, at=at)

    async def _carry_out(self, change: Change, seen: Observed, material: ApplyInputs, *, overtaken: bool) -> Result:
        """Writes; `overtaken` says that another run of this process has since, which may have known a newer key."""
        ref, target = change.ref, self._targets[change.ref.vault]
        now = judge(seen, self._now())
        came = now.managed and change.kind in {"create", "recover"} and now.kind in {"update", "unchanged"}
        if came and not overtaken and (change.kind == "recover" or self._is_older(seen, material.seen[ref])):
            # Our own secret has come back: a recovery that began earlier ended between the look and now.
            came_back = replace(change, kind=_CAME_BACK[change.kind], fields=frozenset())
            return await self._afterwards(came_back, seen, material)
        if (now.kind, now.before) != (change.kind, change.before):
            return _overtaken(change, now)
        if change.kind == "recover":
            with self._resting_on(seen.at, once=True):
                await target.recover(ref.secret)
            return await self._afterwards(change, await self._look(seen), material)
        if now.fields == {"enabled"}:
            with self._resting_on(seen.at):
                await target.enable(ref.secret, now.before or "", enabled=True)
            return await self._afterwards(change, await self._look(seen), material)
        # Where the name was free nothing but the look guards it, so each attempt takes a look of its own.
        return await self._sent(change, now, seen, material)

    async def _sent(self, change: Change, now: Change, seen: Observed, material: ApplyInputs) -> Result:
        value = material.values.get(change.ref)
        if value is None and "value" in now.fields:
            # It held its key when it was compared, and the same version holds another value now: no vault does that.
            return Result(change.ref, "refused", reason=changed_meanwhile(change.ref))
        with self._resting_on(seen.at, once=now.kind == "create"):
            version = await self._send(now, value)
        return Result(change.ref, DONE[change.kind], version=version, reason=change.reason)

    def _is_older(self, seen: Observed, compared: Observed) -> bool:
        """Whether the version that was found where nothing was is from long before the comparison: it was brought back.

        Its age is by the vault's clock, the time since the comparison by this process's monotonic one.
        """
        age = seen.stored.age if isinstance(seen.stored, StoredSecret) else None
        return age is not None and age > timedelta(seconds=self._clock() - compared.at) + _LONG_BEFORE

    async def _afterwards(self, change: Change, seen: Observed, material: ApplyInputs, rounds: int = 1) -> Result:
        """A secret that came back is judged like any other, and written if its value is not the live key."""
        ref = change.ref
        now = judge(await with_history(self._targets[ref.vault], seen), self._now())
        if now.held and not material.accepted:
            return Result(ref, "refused", reason=f"{now.held}, accept what the next run tells")
        if now.kind == "unchanged":
            by_itself = change.kind == "update" and not change.fields
            outcome: Outcome = "unchanged" if by_itself else DONE[change.kind]
            return Result(ref, outcome, version=now.before, reason=change.reason)
        if now.kind != "update" or rounds > _ENOUGH_ROUNDS:
            return Result(ref, "refused", reason=changed_meanwhile(ref)) if now.kind in WRITES else planned(now)
        if now.fields == {"enabled"}:
            with self._resting_on(seen.at):
                await self._targets[ref.vault].enable(ref.secret, now.before or "", enabled=True)
            return await self._afterwards(change, await self._look(seen), material, rounds + 1)
        return await self._sent(change, now, seen, material)

    async def _send(self, change: Change, value: SecretValue | None) -> str:
        target, secret = self._targets[change.ref.vault], change.ref.secret
        if change.metadata is None:
            raise AssertionError(f"a {change.kind} without metadata")
        if "value" in change.fields and value is not None:
            return await target.write(secret, value, change.metadata, before=change.before)
        version = change.before or ""
        await target.patch(secret, version, change.metadata)
        return version

    async def _remove(self, change: Change) -> Result:
        """Disables or deletes an orphan that is still as it was when the plan was made."""
        ref, target = change.ref, self._targets[change.ref.vault]
        at = self._clock()
        stored = await target.read(ref.secret)
        if not _is_still_orphan(stored, change):
            return Result(ref, "refused", reason=orphan_changed_meanwhile(ref))
        with self._resting_on(at, once=True):
            if change.kind == "delete":
                await target.delete(ref.secret)
            else:
                await target.enable(ref.secret, change.before or "", enabled=False)
        return Result(ref, DONE[change.kind], version=change.before, reason=change.reason)

    def _failed(self, change: Change, error: Exception) -> Result:
        record = self._record(error, change)
        outcome: Outcome = "unknown" if isinstance(error, WriteUnknown | ReadFromBefore) else "failed"
        return Result(change.ref, outcome, reason=record.summary, error=record)

    def _record(self, error: Exception, change: Change) -> FailureRecord:
        if isinstance(error, CallFailed):
            return error.record
        return self._translator.record(error, operation="setSecret", scope=change.ref.vault)


def _is_behind(result: Result) -> bool:
    return result.outcome in BAD or (result.outcome == "skipped" and result.verdict != "disabled")


def planned(change: Change) -> Result:
    """The result of a change that is not carried out: what it would be, or why it is nothing to carry out."""
    version = change.before if change.kind == "unchanged" else None
    outcome, reason = change.kind, change.reason
    if change.held and change.kind not in REMOVALS:
        outcome, reason = "refused", change.held
    elif change.read_only and change.kind in WRITES:
        reason = f"{reason}; {_READ_ONLY}" if reason else _READ_ONLY
    return Result(change.ref, outcome, version, reason, change.error, change.verdict, change.since)


def skipped_results(plan: Plan, outcome: Outcome, reason: str) -> tuple[Result, ...]:
    """The results of a plan of which nothing was written, for `reason`."""
    blocked = (
        replace(planned(change), outcome=outcome, reason=reason)
        if change.kind in WRITES and not change.read_only
        else planned(change)
        for change in plan.changes
    )
    return (*plan.settled, *blocked)


def only_planned(plan: Plan) -> tuple[Result, ...]:
    """The results of a plan that is only shown."""
    return (*plan.settled, *map(planned, plan.changes))


def _overtaken(change: Change, now: Change) -> Result:
    if now.kind == "unchanged" and now.managed:
        return Result(change.ref, "unchanged", version=now.before, reason="somebody brought it in sync meanwhile")
    return Result(change.ref, "refused", reason=changed_meanwhile(change.ref))


def _attributes(change: Change) -> dict[str, str]:
    ref = change.ref
    named = {"account": ref.account, "key": ref.key, "vault": ref.vault, "secret": ref.secret, "change": change.kind}
    return {f"keysync.{name}": value for name, value in named.items()}


def _is_still_orphan(stored: Observation, change: Change) -> bool:
    if not isinstance(stored, (StoredSecret, Disabled)) or stored.managed or stored.version != change.before:
        return False
    # Tags change without a version: whoever retagged the secret has taken it.
    return change.owner is not None and is_ours_for(stored.tags or {}, change.ref, change.owner)
