"""One writer a secret: within a process, whoever writes one holds its lock from the last look to the read-back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import takewhile
from math import inf
from weakref import WeakValueDictionary

from keysync.names import fold
from keysync.sync.model import ItemRef


class SecretLocks:
    """Locks by vault and name, and who was written of late; shared by all runs of a process, kept only while of use."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._touched: dict[tuple[str, str], float] = {}

    @asynccontextmanager
    async def writing(self, ref: ItemRef) -> AsyncIterator[None]:
        """Holds the secret of `ref`."""
        place = _place(ref)
        lock = self._locks.get(place)
        if lock is None:
            lock = self._locks[place] = asyncio.Lock()
        async with lock:
            yield

    def touched(self, ref: ItemRef, at: float, *, forget_before: float) -> None:
        """Notes that this process may have written the secret at the monotonic time `at`, in seconds."""
        place = _place(ref)
        self._touched.pop(place, None)
        self._touched[place] = at
        # The oldest stand in front, so that this costs no more than what it forgets.
        for old in list(takewhile(lambda each: self._touched[each] < forget_before, self._touched)):
            del self._touched[old]

    def touched_since(self, ref: ItemRef, at: float) -> bool:
        """Whether a look at the secret at the monotonic time `at` may be from before a write of this process."""
        return self._touched.get(_place(ref), -inf) >= at


def _place(ref: ItemRef) -> tuple[str, str]:
    return ref.vault, fold(ref.secret)
