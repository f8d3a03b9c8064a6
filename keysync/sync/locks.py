"""One writer a secret: within a process, whoever writes one holds its lock from the last look to the read-back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from keysync.sync.model import ItemRef


class SecretLocks:
    """Locks by vault and name; shared by all passes of a process, and kept only while somebody uses them."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def writing(self, ref: ItemRef) -> AsyncIterator[None]:
        """Holds the secret of `ref`."""
        place = (ref.vault, ref.secret.lower())
        lock = self._locks.get(place)
        if lock is None:
            lock = self._locks[place] = asyncio.Lock()
        async with lock:
            yield
