"""What this process wrote of late: a read from before one of its writes, or a write still on its way, makes no second version."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Final, TypeAlias

from keysync.failures import FailureRecord
from keysync.targets.interface import Absent, Observation, StoredSecret

Place: TypeAlias = tuple[str, str]
"""The vault's URL and the secret's name, both in lower case."""

SETTLED_SECONDS: Final = 600.0
"""For how long after a write a read may be answered from before it."""

PENDING_SECONDS: Final = 120.0
"""For how long after its reply was lost a write may still take effect."""

_IGNORED_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class _Made:
    stored: StoredSecret
    older: frozenset[str | None]
    until: float
    shown: bool = False


@dataclass(frozen=True, slots=True)
class _Pending:
    record: FailureRecord
    until: float


@dataclass(frozen=True, slots=True)
class _Ignored:
    attempt: object
    fields: frozenset[str]
    until: float


@dataclass(slots=True)
class Writes:
    """Writes by place, shared by all configurations of a process. `clock` is in monotonic seconds."""

    clock: Callable[[], float] = time.monotonic
    _made: dict[Place, _Made] = field(default_factory=dict)
    _pending: dict[Place, _Pending] = field(default_factory=dict)
    _ignored: dict[Place, _Ignored] = field(default_factory=dict)

    def sent(self, place: Place, record: FailureRecord) -> None:
        """A write was sent whose end is unknown until `made` or `refused`; `record` tells about it meanwhile."""
        self._pending[place] = _Pending(record, self.clock() + PENDING_SECONDS)

    def refused(self, place: Place) -> None:
        """The write that was sent last has certainly taken no effect."""
        self._pending.pop(place, None)

    def made(self, place: Place, before: str | None, stored: StoredSecret) -> None:
        """The write that was sent last has made `stored`, where `before` was the latest version."""
        self._pending.pop(place, None)
        last = self._made.pop(place, None)
        older = last.older if last is not None and last.stored.version == before else frozenset()
        now = self.clock()
        for old in list(takewhile(lambda each: self._made[each].until < now, self._made)):
            del self._made[old]
        self._made[place] = _Made(stored, older | {before}, now + SETTLED_SECONDS)

    def pending(self, place: Place) -> FailureRecord | None:
        """The record of a write that may still take effect."""
        pending = self._pending.get(place)
        if pending is not None and self.clock() >= pending.until:
            del self._pending[place]
            return None
        return pending.record if pending is not None else None

    def saw(self, place: Place, found: Observation) -> bool:
        """Notes what a read has shown; returns whether it is from before a write of this process."""
        made = self._made.get(place)
        if made is None or self.clock() >= made.until:
            self._made.pop(place, None)
            return False
        stale = _version(found) in made.older if isinstance(found, StoredSecret | Absent) else False
        current = isinstance(found, StoredSecret) and found.version == made.stored.version
        if stale or current:
            self._made[place] = replace(made, shown=made.shown or current)
        else:
            del self._made[place]  # another writer's
        return stale

    def last(self, place: Place) -> StoredSecret | None:
        """What this process wrote last, where `saw` may still find a read to be from before it."""
        made = self._made.get(place)
        return made.stored if made is not None else None

    def was_shown(self, place: Place) -> bool:
        """Whether a read has shown what this process wrote last."""
        made = self._made.get(place)
        return made is not None and made.shown

    def forget(self, place: Place) -> None:
        """What this process wrote last is there no more."""
        self._made.pop(place, None)

    def ignored(self, place: Place, attempt: object) -> frozenset[str]:
        """The fields that the vault did not keep when the same `attempt` was made within a day."""
        known = self._ignored.get(place)
        if known is None or known.attempt != attempt or self.clock() >= known.until:
            return frozenset()
        return known.fields

    def ignore(self, place: Place, attempt: object, fields: frozenset[str]) -> None:
        """The vault accepted `attempt` and did not keep `fields`."""
        self._ignored[place] = _Ignored(attempt, fields, self.clock() + _IGNORED_SECONDS)


def _version(found: StoredSecret | Absent) -> str | None:
    return found.version if isinstance(found, StoredSecret) else None
