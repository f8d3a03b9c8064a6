"""The recent writes of this process. They prevent a second version after a stale read, or while a write is still in flight."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Final, TypeAlias

from keysync.failures import FailureRecord
from keysync.targets.interface import Absent, Observation, StoredSecret

SecretPath: TypeAlias = tuple[str, str]
"""The vault's URL and the secret's name, both in lower case."""

STALE_READ_SECONDS: Final = 600.0
"""For how long after a write a read may still show the state before it."""

PENDING_SECONDS: Final = 120.0
"""For how long after a lost reply a write may still take effect."""

_NOT_KEPT_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class _Written:
    stored: StoredSecret
    older: frozenset[str | None]
    until: float
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class _Pending:
    record: FailureRecord
    until: float


@dataclass(frozen=True, slots=True)
class _NotKept:
    attempt: object
    fields: frozenset[str]
    until: float


@dataclass(slots=True)
class RecentWrites:
    """Writes by vault and name, shared by all configurations of a process. `clock` is in monotonic seconds."""

    clock: Callable[[], float] = time.monotonic
    _written: dict[SecretPath, _Written] = field(default_factory=dict[SecretPath, _Written])
    _pending: dict[SecretPath, _Pending] = field(default_factory=dict[SecretPath, _Pending])
    _not_kept: dict[SecretPath, _NotKept] = field(default_factory=dict[SecretPath, _NotKept])

    def sent(self, path: SecretPath, record: FailureRecord) -> None:
        """Records that a write was sent. Until `written` or `refused`, `record` is its failure."""
        self._pending[path] = _Pending(record, self.clock() + PENDING_SECONDS)

    def refused(self, path: SecretPath) -> None:
        """Records that the last write certainly had no effect."""
        self._pending.pop(path, None)

    def written(self, path: SecretPath, before: str | None, stored: StoredSecret) -> None:
        """Records that the last write created `stored` after version `before`."""
        self._pending.pop(path, None)
        previous = self._written.pop(path, None)
        older = (
            previous.older if previous is not None and previous.stored.version == before else frozenset[str | None]()
        )
        now = self.clock()
        for old in list(takewhile(lambda each: self._written[each].until < now, self._written)):
            del self._written[old]
        self._written[path] = _Written(stored, older | {before}, now + STALE_READ_SECONDS)

    def pending(self, path: SecretPath) -> FailureRecord | None:
        """The failure of a write that may still take effect, else None."""
        pending = self._pending.get(path)
        if pending is not None and self.clock() >= pending.until:
            del self._pending[path]
            return None
        return pending.record if pending is not None else None

    def is_stale_read(self, path: SecretPath, observed: Observation) -> bool:
        """Records the result of a read, and returns whether it shows the state before a write of this process."""
        written = self._written.get(path)
        if written is None or self.clock() >= written.until:
            self._written.pop(path, None)
            return False
        stale = _version(observed) in written.older if isinstance(observed, StoredSecret | Absent) else False
        current = isinstance(observed, StoredSecret) and observed.version == written.stored.version
        if stale or current:
            self._written[path] = replace(written, confirmed=written.confirmed or current)
        else:
            del self._written[path]  # another writer's
        return stale

    def last_written(self, path: SecretPath) -> StoredSecret | None:
        """What this process wrote last, where `is_stale_read` may still find a read to be from before it."""
        written = self._written.get(path)
        return written.stored if written is not None else None

    def was_confirmed(self, path: SecretPath) -> bool:
        """Whether a read showed the last write of this process."""
        written = self._written.get(path)
        return written is not None and written.confirmed

    def forget(self, path: SecretPath) -> None:
        """What this process wrote last is there no more."""
        self._written.pop(path, None)

    def fields_not_kept(self, path: SecretPath, attempt: object) -> frozenset[str]:
        """The fields that the vault did not keep when it accepted the same `attempt` within a day."""
        known = self._not_kept.get(path)
        if known is None or known.attempt != attempt or self.clock() >= known.until:
            return frozenset()
        return known.fields

    def note_not_kept(self, path: SecretPath, attempt: object, fields: frozenset[str]) -> None:
        """Records that the vault accepted `attempt` but did not keep `fields`."""
        self._not_kept[path] = _NotKept(attempt, fields, self.clock() + _NOT_KEPT_SECONDS)


def _version(observed: StoredSecret | Absent) -> str | None:
    return observed.version if isinstance(observed, StoredSecret) else None
