"""A listing of a vault during a run: fetched page by page beside everything else, and given up where it does not pay."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from typing import Final

from keysync.failures import CallFailed
from keysync.targets.cache import SecretCache, most_pages, name_key
from keysync.targets.interface import SecretProperties, StoredSecret

_LEAST_PATIENCE: Final = 2.0
_RUNS_WITHOUT: Final = 5


class Pages:
    """What is known of a vault's listings: how long a page takes, and how many there were at least (0: never listed)."""

    def __init__(self) -> None:
        self.seconds = 0.05
        self.count = 0
        self._skipped = 0

    def failed(self) -> None:
        """A listing failed or hung: the next runs do without."""
        self._skipped = _RUNS_WITHOUT

    def may_try(self) -> bool:
        """Whether a listing may be tried in this run."""
        if self._skipped:
            self._skipped -= 1
            return False
        return True

    def took(self, seconds: float) -> None:
        """One more page; the latest count most."""
        self.seconds += 0.3 * (seconds - self.seconds)


class ListingValidation:
    """A `ListValidation` by a listing, which goes on in a task of its own; whoever asks for a name waits for its page at most."""

    def __init__(
        self,
        names: Collection[str],
        memory: SecretCache,
        pages: Pages,
        fetch: Callable[[], AsyncIterator[Sequence[SecretProperties]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # Those that were not shown yet; each by its own string, so that none of a page is kept.
        self._wanted = {place: place for place in map(name_key, names) if memory.can_recall(place)}
        self._memory = memory
        self._pages = pages
        self._fetch = fetch
        self._clock = clock
        # When each was shown to stand as it is remembered; all of a page have one time, and what it is stays where it is.
        self._found: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._heard_at = asyncio.get_running_loop().time()
        self._most = most_pages(len(self._wanted), pages.seconds)
        pays = pages.may_try() and 0 < max(pages.count, 1) <= self._most
        self._task = asyncio.create_task(self._run(), name="survey") if pays else None
        if self._task is not None:
            self._task.add_done_callback(lambda _task: self._release(list(self._waiting)))

    async def recall(self, name: str) -> tuple[StoredSecret, float] | None:
        """What the listing proves, told once; None where it shows something new, has not the name, failed, or was given up."""
        wanted = name_key(name)
        if self._task is None:
            return None
        if wanted in self._wanted and not self._task.done() and not await self._shown(wanted):
            # Reading may work where listing hangs: nobody is to wait for it, in this run or the next ones.
            self._pages.failed()
            self._task.cancel()
            return None
        at = self._found.pop(wanted, None)
        if at is None:
            return None
        stored = self._memory.last_read(wanted)
        return None if stored is None else (stored, at)

    async def _shown(self, wanted: str) -> bool:
        """Waits until the name was shown or nothing more is; returns False where no page has come for too long."""
        # Whoever waits is woken by his own page, not by each: there are as many who wait as there are secrets.
        shown = self._waiting.setdefault(wanted, asyncio.get_running_loop().create_future())
        clock = asyncio.get_running_loop().time
        since = clock()
        while not shown.done():
            patience = max(_LEAST_PATIENCE, 4 * self._pages.seconds)
            left = max(since, self._heard_at) + patience - clock()
            if left <= 0:
                return False
            await asyncio.wait({shown}, timeout=left)
        return True

    async def close(self) -> None:
        """Ends the listing, if it goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        count, began = 0, self._clock()
        try:
            async for page in self._fetch():
                count += 1
                self._pages.took(self._clock() - began)
                self._take(page, began)
                if count >= self._most:
                    # Longer than it is worth: the rest is read one by one, and the next run knows.
                    self._pages.count = max(self._pages.count, count + 1)
                    return
                began = self._clock()
        except CallFailed:
            self._pages.failed()
            return  # what was not listed is read
        self._pages.count = count

    def _take(self, page: Sequence[SecretProperties], at: float) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        shown: list[str] = []
        for listed in page:
            name = self._wanted.pop(name_key(listed.name), None)
            if name is None:
                continue
            shown.append(name)
            if self._memory.recall(listed) is not None:
                self._found[name] = at
        self._release(shown)

    def _release(self, names: Iterable[str]) -> None:
        for name in names:
            waiting = self._waiting.pop(name, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
