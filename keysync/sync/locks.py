"""One writer per secret: within a process, a writer holds the lock of its secret from the last read to the read-back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import takewhile
from math import inf
from weakref import WeakValueDictionary

from keysync.names import fold
from keysync.sync.model import ItemRef


class SecretLocks:
    """Locks by vault and name, and the times of recent writes. All runs of a process share them; unused locks are dropped."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._touched: dict[tuple[str, str], float] = {}

    @asynccontextmanager
    async def writing(self, ref: ItemRef) -> AsyncGenerator[None]:
        """Holds the lock of the secret of `ref`."""
        name = _name(ref)
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        async with lock:
            yield

    def touched(self, ref: ItemRef, at: float, *, forget_before: float) -> None:
        """Records that this process may have written the secret at the monotonic time `at`, in seconds. Drops older records."""
        name = _name(ref)
        self._touched.pop(name, None)
        self._touched[name] = at
        # The oldest come first, so the cost is that of the entries dropped.
        for old in list(takewhile(lambda each: self._touched[each] < forget_before, self._touched)):
            del self._touched[old]

    def touched_since(self, ref: ItemRef, at: float) -> bool:
        """Whether this process may have written the secret since the monotonic time `at`, in seconds."""
        return self._touched.get(_name(ref), -inf) >= at


def _name(ref: ItemRef) -> tuple[str, str]:
    return ref.vault, fold(ref.secret)
