"""Writes one secret: based on a fresh read, and never over another writer's change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from keysync.calls import READ_BARRIER, ReadBarrier
from keysync.failures import FailureTranslator, StaleRead
from keysync.secret.value import SecretValue
from keysync.sync.collect import with_history
from keysync.sync.locks import SecretLocks
from keysync.sync.messages import changed_meanwhile, orphan_changed_meanwhile
from keysync.sync.model import DONE, REMOVALS, WRITES, Change, ChangeKind, Field, ItemRef, Observed, Outcome, Result
from keysync.sync.ownership import is_ours_for
from keysync.sync.plan import judge
from keysync.targets.interface import (
    CacheValidation,
    Disabled,
    LaterVersionListed,
    NotKept,
    SecretTarget,
    StoredSecret,
    WriteUnknown,
)

FRESH_SECONDS: Final = 10.0
"""The maximum age of a read that a write may be based on."""

_ENABLED: Final[frozenset[Field]] = frozenset({"enabled"})
_AS_RESTORED: Final[Mapping[ChangeKind, ChangeKind]] = {"create": "update", "recover": "recover"}
# Longer than both sides of an account take to respond.
_LONG_BEFORE: Final = timedelta(minutes=2)
# The first read and three more. Up to two of these attempts only list the versions: at first, and after a long throttling.
_MAX_ATTEMPTS: Final = 4
# A secret that a listing has confirmed since needs no other listing before its write.
_RECENTLY_SECONDS: Final = 5.0


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


@dataclass(slots=True)
class SecretWriter:
    """Carries out one change of one secret. The caller holds the secret's lock."""

    targets: Mapping[str, SecretTarget]
    translator: FailureTranslator
    locks: SecretLocks
    now: Callable[[], datetime]
    _listings: Mapping[str, CacheValidation] = field(default_factory=dict[str, CacheValidation])

    @asynccontextmanager
    async def listings(self, changes: Iterable[Change]) -> AsyncGenerator[None]:
        """Within the block, a listing of each vault confirms the reads of secrets that get a new version.

        For many secrets it costs less than listing the versions of each one, without which none would be written.
        """
        names: dict[str, list[str]] = {}
        for change in changes:
            if change.before is not None and "value" in change.fields:
                names.setdefault(change.ref.vault, []).append(change.ref.secret)
        since = self.locks.clock() - _RECENTLY_SECONDS
        self._listings = {vault: self.targets[vault].validate_by_listing(names[vault], since=since) for vault in names}
        try:
            yield
        finally:
            await asyncio.gather(*(listing.close() for listing in self._listings.values()))

    async def write(self, change: Change, inputs: ApplyInputs) -> Result:
        """Carries out `change`. Never raises: a failure is in the result."""
        try:
            for attempt in range(_MAX_ATTEMPTS - 1):
                with suppress(StaleRead):
                    return await self._attempt(change, inputs, reread=attempt > 0)
            return await self._attempt(change, inputs, reread=True)
        except asyncio.CancelledError:
            return Result(change.ref, "unknown", reason="interrupted during the write: the next run checks the secret")
        except NotKept as failure:
            # The value is right. Only for an adoption do the tags matter: without them the secret is not keysync's.
            outcome: Outcome = "refused" if change.kind == "adopt" else "skipped"
            reason = f"{failure.record.summary}; {failure.record.hint}"
            return Result(change.ref, outcome, version=change.before, reason=reason)
        except Exception as error:  # noqa: BLE001  # one item's failure must not stop the others
            record = self.translator.record(error, operation="setSecret", scope=change.ref.vault)
            outcome = "unknown" if isinstance(error, WriteUnknown | LaterVersionListed) else "failed"
            return Result(change.ref, outcome, reason=record.summary, error=record)

    async def _attempt(self, change: Change, inputs: ApplyInputs, *, reread: bool) -> Result:
        """Reads the secret again if necessary or `reread`, and writes. Raises StaleRead if the read was too old before it could write."""
        ref = change.ref
        if change.kind in REMOVALS:
            return await self._remove(change)
        if ref.account in inputs.untrusted:
            return Result(ref, "refused", reason=inputs.untrusted[ref.account])
        observed = inputs.observed[ref]
        # Another run of this process may have written it, perhaps with a newer key.
        rewritten = self.locks.touched_since(ref, observed.at)
        latest = await self._latest(change, observed, reread=reread or rewritten)
        now = judge(latest, self.now())
        restored = now.managed and change.kind in _AS_RESTORED and now.kind in {"update", "unchanged"}
        if restored and not rewritten and (change.kind == "recover" or self._is_older(latest, observed)):
            # keysync's own secret: a recovery that started earlier has finished since it was read.
            change = replace(change, kind=_AS_RESTORED[change.kind], fields=frozenset())
            return await self._restored(change, latest, inputs)
        if (now.kind, now.before) != (change.kind, change.before):
            if now.kind == "unchanged" and now.managed:
                reason = "another writer brought it in sync meanwhile"
                return Result(ref, "unchanged", version=now.before, reason=reason)
            return Result(ref, "refused", reason=changed_meanwhile(ref))
        if change.kind == "recover":
            with self._barrier(latest.at, once=True):
                await self.targets[ref.vault].recover(ref.secret)
            return await self._restored(change, await self._read(latest), inputs)
        if now.fields == _ENABLED:
            return await self._restored(change, latest, inputs)
        return await self._send(change, now, latest, inputs)

    async def _latest(self, change: Change, observed: Observed, *, reread: bool) -> Observed:
        """`observed`, or what a listing or another read has shown since."""
        if not reread and change.ref.vault in self._listings:
            confirmed = await self._listings[change.ref.vault].confirmed(change.ref.secret)
            if confirmed is not None and self._is_fresh(confirmed[1]):
                return replace(observed, current=confirmed[0], at=confirmed[1])
        # A name without a secret is always read again: only that read protects a secret that another writer has just created.
        if not reread and change.kind != "create" and self._is_fresh(observed.at):
            return observed
        # No need to check for a soft-deleted secret again: Key Vault itself refuses to write over one.
        return await self._read(observed, deleted=change.kind != "create")

    def _is_fresh(self, at: float) -> bool:
        return self.locks.clock() - at <= FRESH_SECONDS

    async def _read(self, observed: Observed, *, deleted: bool = True) -> Observed:
        at, ref = self.locks.clock(), observed.item.ref
        return replace(observed, current=await self.targets[ref.vault].read(ref.secret, deleted=deleted), at=at)

    async def _restored(self, change: Change, latest: Observed, inputs: ApplyInputs) -> Result:
        """Plans a recovered or disabled secret again: enables it, and writes it if its value is not the current key."""
        ref, target = change.ref, self.targets[change.ref.vault]
        for _ in range(_MAX_ATTEMPTS):
            now = judge(await with_history(target, latest), self.now())
            if now.needs_accept and not inputs.accepted:
                return Result(ref, "refused", reason=f"{now.needs_accept}, use the command that the next run shows")
            if now.kind == "unchanged":
                by_itself = change.kind == "update" and not change.fields
                outcome: Outcome = "unchanged" if by_itself else DONE[change.kind]
                return Result(ref, outcome, version=now.before, reason=change.reason)
            if now.kind != "update":
                return Result(ref, "refused", reason=changed_meanwhile(ref)) if now.kind in WRITES else now.unwritten()
            if now.fields != _ENABLED:
                return await self._send(change, now, latest, inputs)
            with self._barrier(latest.at):
                await target.enable(ref.secret, now.before or "", enabled=True)
            latest = await self._read(latest)
        return Result(ref, "refused", reason=changed_meanwhile(ref))

    async def _send(self, change: Change, now: Change, latest: Observed, inputs: ApplyInputs) -> Result:
        ref, target, version = now.ref, self.targets[now.ref.vault], now.before or ""
        if now.metadata is None:
            raise AssertionError(f"a {now.kind} without metadata")
        # Only the read protects a name without a secret, so each attempt needs a read of its own.
        with self._barrier(latest.at, once=now.kind == "create"):
            if "value" not in now.fields:
                await target.patch(ref.secret, version, now.metadata)
            elif ref in inputs.values:
                version = await target.write(ref.secret, inputs.values[ref], now.metadata, before=now.before)
            else:
                # It was in sync when compared, and the same version now has another value: no vault does that.
                return Result(ref, "refused", reason=changed_meanwhile(ref))
        return Result(ref, DONE[change.kind], version=version, reason=change.reason)

    async def _remove(self, change: Change) -> Result:
        """Disables or deletes an orphan, unless it has changed since the plan."""
        ref, target, at = change.ref, self.targets[change.ref.vault], self.locks.clock()
        stored = await target.read(ref.secret)
        if (
            not isinstance(stored, (StoredSecret, Disabled))
            or stored.managed
            or stored.version != change.before
            # Tags change without a new version: another writer may have taken the secret over.
            or not is_ours_for(stored.tags or {}, ref, change.owner)
            or change.owner is None
        ):
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
        token = READ_BARRIER.set(ReadBarrier(at + FRESH_SECONDS, self.locks.clock, once=once))
        try:
            yield
        finally:
            READ_BARRIER.reset(token)

    def _is_older(self, latest: Observed, observed: Observed) -> bool:
        """Whether `latest`, a version of a secret that was absent, is much older than the comparison: then it was recovered.

        Its age is by the vault's clock, the time since the comparison by this process's monotonic clock.
        """
        age = latest.current.age if isinstance(latest.current, StoredSecret) else None
        return age is not None and age > timedelta(seconds=self.locks.clock() - observed.at) + _LONG_BEFORE
