"""Validates cached secrets by a listing of the vault, which runs in the background of a sync run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from typing import Final

from keysync.failures import CallFailed
from keysync.targets.cache import SecretCache, max_pages, name_key
from keysync.targets.interface import SecretProperties, StoredSecret

_MIN_WAIT: Final = 2.0
_RUNS_SKIPPED: Final = 5


class ListingStats:
    """Experience with a vault's listings: seconds for a page, and the least number of pages (0: never listed)."""

    def __init__(self) -> None:
        self.seconds = 0.05
        self.count = 0
        self._skipped = 0

    def failed(self) -> None:
        """Records that a listing failed or hung. The next runs skip it."""
        self._skipped = _RUNS_SKIPPED

    def may_list(self) -> bool:
        """Whether a listing may be tried in this run."""
        if self._skipped:
            self._skipped -= 1
            return False
        return True

    def add_page(self, seconds: float) -> None:
        """Records the duration of a page in a moving average."""
        self.seconds += 0.3 * (seconds - self.seconds)


class ListValidation:
    """A `CacheValidation` whose listing runs in its own task. A caller waits at most for the page of its name."""

    def __init__(
        self,
        names: Collection[str],
        cache: SecretCache,
        stats: ListingStats,
        fetch: Callable[[], AsyncIterator[Sequence[SecretProperties]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # Names not listed yet. The values are our own strings, so that no string of a page is kept.
        self._unlisted = {key: key for key in map(name_key, names) if cache.is_usable(key)}
        self._cache = cache
        self._listing_stats = stats
        self._fetch = fetch
        self._clock = clock
        # When each name was confirmed (monotonic seconds). All names of a page share one time.
        self._confirmed_at: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._last_page_at = asyncio.get_running_loop().time()
        self._max_pages = max_pages(len(self._unlisted), stats.seconds)
        pays = stats.may_list() and 0 < max(stats.count, 1) <= self._max_pages
        self._task = asyncio.create_task(self._run(), name="list validation") if pays else None
        if self._task is not None:
            self._task.add_done_callback(lambda _task: self._wake(list(self._waiting)))

    async def confirmed(self, name: str) -> tuple[StoredSecret, float] | None:
        """The cached secret and the time of its listing if the listing confirms it, else None. Each name is confirmed once."""
        key = name_key(name)
        if self._task is None:
            return None
        if key in self._unlisted and not self._task.done() and not await self._wait_for_name(key):
            # Reads may work although listings hang: skip the listing in this run and in the next ones.
            self._listing_stats.failed()
            self._task.cancel()
            return None
        at = self._confirmed_at.pop(key, None)
        if at is None:
            return None
        stored = self._cache.last_read(key)
        return None if stored is None else (stored, at)

    async def _wait_for_name(self, key: str) -> bool:
        """Waits until the name was listed or the listing ended. Returns False if no page arrived for too long."""
        # One future for each name: a page wakes only the callers of its own names.
        listed = self._waiting.setdefault(key, asyncio.get_running_loop().create_future())
        clock = asyncio.get_running_loop().time
        since = clock()
        while not listed.done():
            limit = max(_MIN_WAIT, 4 * self._listing_stats.seconds)
            remaining = max(since, self._last_page_at) + limit - clock()
            if remaining <= 0:
                return False
            await asyncio.wait({listed}, timeout=remaining)
        return True

    async def close(self) -> None:
        """Cancels the listing if it is still active."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        count, began = 0, self._clock()
        try:
            async for page in self._fetch():
                count += 1
                self._listing_stats.add_page(self._clock() - began)
                self._confirm(page, began)
                if count >= self._max_pages:
                    # The listing costs more than it saves: read the rest one by one, and remember the number of pages.
                    self._listing_stats.count = max(self._listing_stats.count, count + 1)
                    return
                began = self._clock()
        except CallFailed:
            self._listing_stats.failed()
            return  # names that were not listed are read
        self._listing_stats.count = count

    def _confirm(self, page: Sequence[SecretProperties], at: float) -> None:
        self._last_page_at = asyncio.get_running_loop().time()
        keys: list[str] = []
        for listed in page:
            key = self._unlisted.pop(name_key(listed.name), None)
            if key is None:
                continue
            keys.append(key)
            if self._cache.confirmed(listed) is not None:
                self._confirmed_at[key] = at
        self._wake(keys)

    def _wake(self, names: Iterable[str]) -> None:
        for name in names:
            waiting = self._waiting.pop(name, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
