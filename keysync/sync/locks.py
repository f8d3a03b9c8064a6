"""One writer per secret: within a process, a writer holds the lock of its secret from the last read to the read-back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import takewhile
from math import inf
from typing import Final
from weakref import WeakValueDictionary

from keysync.names import fold
from keysync.sync.model import ItemRef

# Longer than a run takes from its first read to its last write.
_REMEMBERED_SECONDS: Final = 600.0


class SecretLocks:
    """Locks by vault and name, and the times of recent writes. All runs of a process share them; unused locks are dropped.

    `clock` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._touched: dict[tuple[str, str], float] = {}

    def lock(self, ref: ItemRef) -> asyncio.Lock:
        """The lock of the secret of `ref`."""
        return self._locks.setdefault(_name(ref), asyncio.Lock())

    def touched(self, ref: ItemRef) -> None:
        """Records that this process may have written the secret. Drops old records."""
        name, now = _name(ref), self.clock()
        self._touched.pop(name, None)
        self._touched[name] = now
        # The oldest come first, so the cost is that of the entries dropped.
        for old in list(takewhile(lambda each: self._touched[each] < now - _REMEMBERED_SECONDS, self._touched)):
            del self._touched[old]

    def touched_since(self, ref: ItemRef, at: float) -> bool:
        """Whether this process may have written the secret since the monotonic time `at`, in seconds."""
        return self._touched.get(_name(ref), -inf) >= at


def _name(ref: ItemRef) -> tuple[str, str]:
    return ref.vault, fold(ref.secret)
