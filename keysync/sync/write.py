"""Writes one secret: based on a fresh read, and never over another writer's change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from keysync.calls import READ_BARRIER, ReadBarrier
from keysync.failures import FailureTranslator, StaleRead
from keysync.secret.value import SecretValue
from keysync.sync.history import with_history
from keysync.sync.locks import SecretLocks
from keysync.sync.messages import changed_meanwhile, orphan_changed_meanwhile
from keysync.sync.model import DONE, REMOVALS, WRITES, Change, ChangeKind, Field, ItemRef, Observed, Outcome, Result
from keysync.sync.ownership import is_ours_for
from keysync.sync.plan import judge
from keysync.targets.errors import LaterVersionListed, NotKept, WriteUnknown
from keysync.targets.interface import Disabled, Observation, SecretTarget, StoredSecret

FRESH_SECONDS: Final = 10.0
"""The maximum age of a read that a write may be based on."""

_ENABLED: Final[frozenset[Field]] = frozenset({"enabled"})
_CANCELLED: Final = "interrupted during the write: the next run checks the secret"
_AS_RESTORED: Final[Mapping[ChangeKind, ChangeKind]] = {"create": "update", "recover": "recover"}
# Longer than both sides of an account take to respond.
_LONG_BEFORE: Final = timedelta(minutes=2)
_MAX_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class ApplyInputs:
    """What a write needs beside the plan: what was observed, and the values (masked when printed).

    `accepted`: a person accepted the plan, with all changes that need `--accept`. `untrusted`: accounts whose keys must not be
    written, with the reason; it may grow while the plan is applied.
    """

    observed: Mapping[ItemRef, Observed] = field(default_factory=dict[ItemRef, Observed])
    values: Mapping[ItemRef, SecretValue] = field(default_factory=dict[ItemRef, SecretValue])
    accepted: bool = False
    untrusted: Mapping[str, str] = field(default_factory=dict[str, str])


class SecretWriter:
    """Carries out one change of one secret. The caller holds the secret's lock."""

    def __init__(
        self,
        targets: Mapping[str, SecretTarget],
        translator: FailureTranslator,
        locks: SecretLocks,
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._targets = targets
        self._translator = translator
        self._locks = locks
        self._clock = clock
        self._now = now

    async def write(self, change: Change, inputs: ApplyInputs) -> Result:
        """Carries out `change`. Never raises: a failure is in the result."""
        try:
            for attempt in range(_MAX_ATTEMPTS - 1):
                with suppress(StaleRead):
                    return await self._attempt(change, inputs, reread=attempt > 0)
            return await self._attempt(change, inputs, reread=True)
        except asyncio.CancelledError:
            return Result(change.ref, "unknown", reason=_CANCELLED)
        except NotKept as failure:
            # The value is right. Only for an adoption do the tags matter: without them the secret is not keysync's.
            outcome: Outcome = "refused" if change.kind == "adopt" else "skipped"
            reason = f"{failure.record.summary}; {failure.record.hint}"
            return Result(change.ref, outcome, version=change.before, reason=reason)
        except Exception as error:  # noqa: BLE001  # one item's failure must not stop the others
            return self._failed(change, error)

    async def _attempt(self, change: Change, inputs: ApplyInputs, *, reread: bool) -> Result:
        """Reads the secret again if necessary or `reread`, and writes. Raises StaleRead if the read was too old before it could write."""
        if change.kind in REMOVALS:
            return await self._remove(change)
        if change.ref.account in inputs.untrusted:
            return Result(change.ref, "refused", reason=inputs.untrusted[change.ref.account])
        observed = inputs.observed[change.ref]
        rewritten = self._locks.touched_since(change.ref, observed.at)
        if reread or rewritten or not self._is_fresh(change, observed):
            # No need to check for a soft-deleted secret again: Key Vault itself refuses to write over one.
            latest = await self._read(observed, deleted=change.kind != "create")
        else:
            latest = observed
        return await self._carry_out(change, latest, inputs, rewritten=rewritten)

    def _is_fresh(self, change: Change, observed: Observed) -> bool:
        """Whether a write may be based on `observed`.

        A name without a secret is always read again: only that read protects a secret that another writer has just created.
        """
        return change.kind != "create" and self._clock() - observed.at <= FRESH_SECONDS

    async def _read(self, observed: Observed, *, deleted: bool = True) -> Observed:
        at = self._clock()
        ref = observed.item.ref
        return replace(observed, current=await self._targets[ref.vault].read(ref.secret, deleted=deleted), at=at)

    async def _carry_out(self, change: Change, latest: Observed, inputs: ApplyInputs, *, rewritten: bool) -> Result:
        """Writes, unless the secret has changed. `rewritten`: another run of this process, perhaps with a newer key, wrote it."""
        ref, target = change.ref, self._targets[change.ref.vault]
        now = judge(latest, self._now())
        restored = now.managed and change.kind in _AS_RESTORED and now.kind in {"update", "unchanged"}
        if restored and not rewritten and (change.kind == "recover" or self._is_older(latest, inputs.observed[ref])):
            # keysync's own secret: a recovery that started earlier has finished since it was read.
            change = replace(change, kind=_AS_RESTORED[change.kind], fields=frozenset())
            return await self._after_restore(change, latest, inputs)
        if (now.kind, now.before) != (change.kind, change.before):
            return _conflict(change, now)
        if change.kind == "recover":
            with self._barrier(latest.at, once=True):
                await target.recover(ref.secret)
            return await self._after_restore(change, await self._read(latest), inputs)
        if now.fields == _ENABLED:
            return await self._enable(change, now, latest, inputs)
        return await self._send(change, now, latest, inputs)

    async def _enable(
        self, change: Change, now: Change, latest: Observed, inputs: ApplyInputs, attempt: int = 0
    ) -> Result:
        with self._barrier(latest.at):
            await self._targets[change.ref.vault].enable(change.ref.secret, now.before or "", enabled=True)
        return await self._after_restore(change, await self._read(latest), inputs, attempt + 1)

    async def _after_restore(self, change: Change, latest: Observed, inputs: ApplyInputs, attempt: int = 1) -> Result:
        """Plans a recovered or enabled secret again, and writes it if its value is not the current key."""
        ref = change.ref
        now = judge(await with_history(self._targets[ref.vault], latest), self._now())
        if now.needs_accept and not inputs.accepted:
            return Result(ref, "refused", reason=f"{now.needs_accept}, use the command that the next run shows")
        if now.kind == "unchanged":
            by_itself = change.kind == "update" and not change.fields
            outcome: Outcome = "unchanged" if by_itself else DONE[change.kind]
            return Result(ref, outcome, version=now.before, reason=change.reason)
        if now.kind != "update" or attempt > _MAX_ATTEMPTS:
            return Result(ref, "refused", reason=changed_meanwhile(ref)) if now.kind in WRITES else now.unwritten()
        if now.fields == _ENABLED:
            return await self._enable(change, now, latest, inputs, attempt)
        return await self._send(change, now, latest, inputs)

    async def _send(self, change: Change, now: Change, latest: Observed, inputs: ApplyInputs) -> Result:
        ref, target = now.ref, self._targets[now.ref.vault]
        value = inputs.values.get(ref)
        if "value" in now.fields and value is None:
            # It was in sync when compared, and the same version now has another value: no vault does that.
            return Result(ref, "refused", reason=changed_meanwhile(ref))
        if now.metadata is None:
            raise AssertionError(f"a {now.kind} without metadata")
        # Only the read protects a name without a secret, so each attempt needs a read of its own.
        with self._barrier(latest.at, once=now.kind == "create"):
            if "value" in now.fields and value is not None:
                version = await target.write(ref.secret, value, now.metadata, before=now.before)
            else:
                version = now.before or ""
                await target.patch(ref.secret, version, now.metadata)
        return Result(ref, DONE[change.kind], version=version, reason=change.reason)

    async def _remove(self, change: Change) -> Result:
        """Disables or deletes an orphan, unless it has changed since the plan."""
        ref, target = change.ref, self._targets[change.ref.vault]
        at = self._clock()
        if not _is_still_orphan(await target.read(ref.secret), change):
            return Result(ref, "refused", reason=orphan_changed_meanwhile(ref))
        with self._barrier(at, once=True):
            if change.kind == "delete":
                await target.delete(ref.secret)
            else:
                await target.enable(ref.secret, change.before or "", enabled=False)
        return Result(ref, DONE[change.kind], version=change.before, reason=change.reason)

    @contextmanager
    def _barrier(self, at: float, *, once: bool = False) -> Generator[None]:
        """Requests within are sent only while the read at `at` is fresh; with `once`, each a single time."""
        token = READ_BARRIER.set(ReadBarrier(at + FRESH_SECONDS, self._clock, once=once))
        try:
            yield
        finally:
            READ_BARRIER.reset(token)

    def _is_older(self, latest: Observed, observed: Observed) -> bool:
        """Whether `latest`, a version of a secret that was absent, is much older than the comparison: then it was recovered.

        Its age is by the vault's clock, the time since the comparison by this process's monotonic clock.
        """
        age = latest.current.age if isinstance(latest.current, StoredSecret) else None
        return age is not None and age > timedelta(seconds=self._clock() - observed.at) + _LONG_BEFORE

    def _failed(self, change: Change, error: Exception) -> Result:
        record = self._translator.record(error, operation="setSecret", scope=change.ref.vault)
        outcome: Outcome = "unknown" if isinstance(error, WriteUnknown | LaterVersionListed) else "failed"
        return Result(change.ref, outcome, reason=record.summary, error=record)


def _conflict(change: Change, now: Change) -> Result:
    if now.kind == "unchanged" and now.managed:
        return Result(change.ref, "unchanged", version=now.before, reason="another writer brought it in sync meanwhile")
    return Result(change.ref, "refused", reason=changed_meanwhile(change.ref))


def _is_still_orphan(stored: Observation, change: Change) -> bool:
    if not isinstance(stored, (StoredSecret, Disabled)) or stored.managed or stored.version != change.before:
        return False
    # Tags change without a new version: another writer may have taken the secret over.
    return change.owner is not None and is_ours_for(stored.tags or {}, change.ref, change.owner)
