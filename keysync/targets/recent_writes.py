"""The recent writes of this process. They prevent a second version after a stale read, or while a write is still in flight."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, Final, TypeAlias

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
class WrittenSecret:
    """What this process wrote, and the versions before it (None: no secret). `confirmed` says that a read has shown it."""

    stored: StoredSecret
    older: frozenset[str | None]
    until: float
    confirmed: bool = False


@dataclass(slots=True)
class RecentWrites:
    """Writes by vault and name, shared by all configurations of a process. `clock` is in monotonic seconds."""

    clock: Callable[[], float] = time.monotonic
    _written: dict[SecretPath, WrittenSecret] = field(default_factory=dict[SecretPath, WrittenSecret])
    _pending: dict[SecretPath, tuple[FailureRecord, float]] = field(default_factory=dict[SecretPath, Any])
    _not_kept: dict[SecretPath, tuple[object, frozenset[str], float]] = field(default_factory=dict[SecretPath, Any])

    def sent(self, path: SecretPath, record: FailureRecord) -> None:
        """Records that a write was sent. Until `written` or `refused`, `record` is its failure."""
        self._pending[path] = record, self.clock() + PENDING_SECONDS

    def refused(self, path: SecretPath) -> None:
        """Records that the last write certainly had no effect."""
        self._pending.pop(path, None)

    def pending(self, path: SecretPath) -> FailureRecord | None:
        """The failure of a write that may still take effect, else None."""
        record, until = self._pending.get(path, (None, 0.0))
        return record if self.clock() < until else None

    def written(self, path: SecretPath, before: str | None, stored: StoredSecret) -> None:
        """Records that the last write created `stored` after version `before`."""
        self._pending.pop(path, None)
        previous, now = self._written.pop(path, None), self.clock()
        older = (
            previous.older if previous is not None and previous.stored.version == before else frozenset[str | None]()
        )
        for old in list(takewhile(lambda each: self._written[each].until < now, self._written)):
            del self._written[old]
        self._written[path] = WrittenSecret(stored, older | {before}, now + STALE_READ_SECONDS)

    def written_since(self, path: SecretPath, observed: Observation) -> WrittenSecret | None:
        """Records the result of a read, and returns what this process wrote if the read shows the state before that."""
        written = self._written.get(path)
        if written is None or self.clock() >= written.until:
            self._written.pop(path, None)
            return None
        version = observed.version if isinstance(observed, StoredSecret) else None
        if isinstance(observed, StoredSecret | Absent) and version in written.older:
            return written
        if version == written.stored.version:
            self._written[path] = replace(written, confirmed=True)
        else:
            del self._written[path]  # another writer's
        return None

    def forget(self, path: SecretPath) -> None:
        """What this process wrote last is there no more."""
        self._written.pop(path, None)

    def fields_not_kept(self, path: SecretPath, attempt: object) -> frozenset[str]:
        """The fields that the vault did not keep when it accepted the same `attempt` within a day."""
        known, fields, until = self._not_kept.get(path, (None, frozenset[str](), 0.0))
        return fields if known == attempt and self.clock() < until else frozenset[str]()

    def note_not_kept(self, path: SecretPath, attempt: object, fields: frozenset[str]) -> None:
        """Records that the vault accepted `attempt` but did not keep `fields`."""
        self._not_kept[path] = attempt, fields, self.clock() + _NOT_KEPT_SECONDS
