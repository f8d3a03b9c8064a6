"""Reads that return the past: the state of a secret before a write, as a replica that lags behind has it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from keysync.emulator.throttle import Clock
from keysync.emulator.vault_secrets import Secret


@dataclass
class _Past:
    """A past state of a secret, None for its absence. It ends after `reads` reads, or at `until` by the clock."""

    secret: Secret | None
    reads: int | None = None
    until: float | None = None


class StaleReads:
    """The past states of secrets that the next reads return, oldest first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._past: defaultdict[str, list[_Past]] = defaultdict(list)

    def keep(self, name: str, secret: Secret | None, *, reads: int | None = None, seconds: float | None = None) -> None:
        """Return `secret` in the next reads: in `reads` of them, or for `seconds`."""
        until = None if seconds is None else self._clock() + seconds
        self._past[name.lower()].append(_Past(secret, reads, until))

    def pending(self, name: str) -> bool:
        """Whether the next read of this secret returns a past state."""
        return bool(self._current(name))

    def take(self, name: str) -> _Past | None:
        """The past state that this read returns, None if it returns the present one."""
        past = self._current(name)
        if not past:
            return None
        first = past[0]
        if first.reads is not None:
            first.reads -= 1
        return first

    def forget(self, name: str) -> None:
        """Return the present state of one secret."""
        self._past.pop(name.lower(), None)

    def clear(self) -> None:
        """Return the present state of every secret."""
        self._past.clear()

    def _current(self, name: str) -> list[_Past]:
        """The past states that have not ended."""
        past = self._past.get(name.lower(), [])
        while past and (past[0].reads == 0 or (past[0].until is not None and past[0].until <= self._clock())):
            del past[0]
        return past
