"""One call for several callers: the keys of an account with several vaults are requested once a run."""

from __future__ import annotations

import asyncio

from keysync.sources.interface import AccountKeys, KeySource


class SingleFlightSource:
    """A `KeySource` that calls `inner` once; all callers get the same keys or the same failure.

    If all waiting callers are cancelled, the call is cancelled too. After `callers` calls of `get_keys` the result is dropped,
    so that key values stay in memory no longer than needed.
    """

    def __init__(self, inner: KeySource, callers: int) -> None:
        self.key_names = inner.key_names
        self.probe = inner.probe
        self._inner = inner
        self._remaining = callers
        self._call: asyncio.Task[AccountKeys] | None = None
        self._waiting = 0

    async def get_keys(self) -> AccountKeys:
        """The keys as of the first call. Raises CallFailed."""
        if self._call is None:
            self._call = asyncio.create_task(self._inner.get_keys())
        self._waiting += 1
        call = self._call
        try:
            return await asyncio.shield(call)
        finally:
            self._waiting -= 1
            self._remaining -= 1
            if not self._waiting and not call.done():
                call.cancel()
                self._call = None  # a later caller starts a new call
            if self._remaining <= 0:
                self._call = None
