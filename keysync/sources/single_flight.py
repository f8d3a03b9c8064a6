"""One call for many askers: an account that serves several vaults is asked for its keys once a run."""

from __future__ import annotations

import asyncio

from keysync.sources.interface import AccountKeys, KeySource


class SingleFlightSource:
    """A `KeySource` that asks `inner` once, however many ask it and when; all get the same answer or failure.

    The call ends when the last of those who wait for it has gone. Once `askers` have asked, the answer is forgotten: nobody
    else will, and values are not to be there for longer than they are of use.
    """

    def __init__(self, inner: KeySource, askers: int) -> None:
        self._inner = inner
        self._left = askers
        self._call: asyncio.Task[AccountKeys] | None = None
        self._waiting = 0

    async def get_keys(self) -> AccountKeys:
        """The keys as they were when first asked for. Raises CallFailed."""
        if self._call is None:
            self._call = asyncio.create_task(self._inner.get_keys())
        self._waiting += 1
        call = self._call
        try:
            return await asyncio.shield(call)
        finally:
            self._waiting -= 1
            self._left -= 1
            if not self._waiting and not call.done():
                call.cancel()
                self._call = None  # whoever comes later asks anew
            if self._left <= 0:
                self._call = None

    async def probe(self) -> None:
        """Reads the account without its keys. Raises CallFailed."""
        await self._inner.probe()
