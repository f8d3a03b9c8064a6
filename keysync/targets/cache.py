"""The cache of secrets that this process read, and the listing of the vault that confirms it in the background of a run.

A listing has no version and no value, but the tags and the time of the last update in whole seconds
(learn.microsoft.com/rest/api/keyvault/secrets/get-secrets). While both are unchanged, a cached secret need not be read again,
unless it was read in the same second as an update: another update may have followed in that second.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from keysync.failures import CallFailed
from keysync.names import fold
from keysync.targets.interface import SecretProperties, StoredSecret

PAGE: Final = 25
"""The largest page of a listing that Key Vault allows, in secrets."""

_SAME_SECOND: Final = timedelta(seconds=2)
_READS_AT_ONCE: Final = 64
_READS_A_SECOND: Final = 400  # Key Vault's sustained limit: 4,000 in 10 seconds
_BURST: Final = 4000
_ALWAYS_FINE_SECONDS: Final = 2.0
_MIN_WAIT: Final = 2.0
_RUNS_SKIPPED: Final = 5


@dataclass(frozen=True, slots=True)
class _Cached:
    """A secret, its time of update when it was read (UTC), and until when it counts (monotonic seconds)."""

    stored: StoredSecret
    updated: datetime
    good_until: float


@dataclass(slots=True)
class SecretCache:
    """Secrets by case-insensitive name. Each value is read again within `verify_seconds`, at a random time."""

    verify_seconds: float
    clock: Callable[[], float]
    uniform: Callable[[float, float], float] = random.uniform
    _known: dict[str, _Cached] = field(default_factory=dict[str, _Cached])

    def keep(self, name: str, stored: StoredSecret, updated: datetime | None, answered: datetime | None) -> None:
        """Caches a secret, if a listing will show its next update. `answered` is the service's time of the reply; None if unknown."""
        if updated is None or answered is None or answered - updated < _SAME_SECOND:
            self.forget(name)
            return
        # Random, so that the values of a fleet do not all expire in one run.
        good_until = self.clock() + self.uniform(0.5, 1.0) * self.verify_seconds
        self._known[fold(name)] = _Cached(stored, interned_time(updated), good_until)

    def forget(self, name: str) -> None:
        """Removes a secret from the cache."""
        self._known.pop(fold(name), None)

    def is_usable(self, name: str) -> bool:
        """Whether a listing could save the read of `name`."""
        known = self._known.get(fold(name))
        return known is not None and self.clock() < known.good_until

    def last_read(self, name: str) -> StoredSecret | None:
        """The cached secret, whether or not it is current; None while it is being read again.

        A secret is in one run at a time, so after `confirmed` this is the confirmed secret.
        """
        known = self._known.get(fold(name))
        return None if known is None else known.stored

    def confirmed(self, listed: SecretProperties) -> StoredSecret | None:
        """The cached secret if `listed` shows that it is unchanged, else None."""
        known = self._known.get(fold(listed.name))
        if known is None or self.clock() >= known.good_until:
            return None
        stored = known.stored
        same = (
            listed.enabled
            and listed.updated == known.updated
            and listed.managed == stored.managed
            and listed.content_type == stored.content_type
            and listed.expires == stored.expires
            and listed.tags == stored.tags
        )
        return stored if same else None


@lru_cache(maxsize=256)
def interned_time(moment: datetime) -> datetime:
    """Returns one object for all equal times. Times have whole seconds, and many secrets were created in one run."""
    return moment


def max_pages(cached: int, page_seconds: float) -> int:
    """The number of pages up to which a listing is better than reading `cached` secrets one by one.

    A listing must save requests and must not take much longer. Its pages are fetched one after another; reads run in
    parallel until Key Vault throttles them. `page_seconds` is the time for one page.
    """
    reading = max(math.ceil(cached / _READS_AT_ONCE) * page_seconds, (cached - _BURST) / _READS_A_SECOND)
    in_time = max(_ALWAYS_FINE_SECONDS, 4 * reading) / max(page_seconds, 0.001)
    return min(max(cached - 1, 0), int(in_time))


@dataclass(slots=True)
class ListingStats:
    """Experience with a vault's listings: seconds a page, the least number of pages (0: never listed), runs to skip."""

    seconds: float = 0.05
    count: int = 0
    skip: int = 0

    def may_list(self) -> bool:
        """Whether a listing may be tried in this run: a listing that failed or hung is skipped in the next ones."""
        if self.skip:
            self.skip -= 1
            return False
        return True


class ListValidation:
    """A `CacheValidation` whose listing runs in its own task. A caller waits at most for the page of its name."""

    def __init__(
        self,
        names: Collection[str],
        cache: SecretCache,
        stats: ListingStats,
        fetch: Callable[[], AsyncIterator[Sequence[SecretProperties]]],
        on_confirmed: Callable[[str, StoredSecret, float], None] = lambda _name, _stored, _at: None,
    ) -> None:
        # Names not listed yet. The values are our own strings, so that no string of a page is kept.
        self._unlisted = {key: key for key in map(fold, names) if cache.is_usable(key)}
        self._cache = cache
        self._stats = stats
        self._fetch = fetch
        self._on_confirmed = on_confirmed
        # When each name was confirmed (monotonic seconds). All names of a page share one time.
        self._confirmed_at: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._last_page_at = time.monotonic()
        self._max_pages = max_pages(len(self._unlisted), stats.seconds)
        pays = stats.may_list() and 0 < max(stats.count, 1) <= self._max_pages
        self._task = asyncio.create_task(self._run(), name="list validation") if pays else None
        if self._task is not None:
            self._task.add_done_callback(lambda _task: self._wake(list(self._waiting)))

    async def confirmed(self, name: str) -> tuple[StoredSecret, float] | None:
        """The cached secret and the time of its listing if the listing confirms it, else None. Each name is confirmed once."""
        key = fold(name)
        if self._task is None:
            return None
        if key in self._unlisted and not self._task.done() and not await self._wait_for_name(key):
            # Reads may work although listings hang: skip the listing in this run and in the next ones.
            self._stats.skip = _RUNS_SKIPPED
            self._task.cancel()
            return None
        at, stored = self._confirmed_at.pop(key, None), self._cache.last_read(key)
        if at is None or stored is None:
            return None
        self._on_confirmed(key, stored, at)
        return stored, at

    async def _wait_for_name(self, key: str) -> bool:
        """Waits until the name was listed or the listing ended. Returns False if no page arrived for too long."""
        # One future for each name: a page wakes only the callers of its own names.
        listed = self._waiting.setdefault(key, asyncio.get_running_loop().create_future())
        since = time.monotonic()
        while not listed.done():
            limit = max(_MIN_WAIT, 4 * self._stats.seconds)
            remaining = max(since, self._last_page_at) + limit - time.monotonic()
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
        count, began = 0, time.monotonic()
        try:
            async for page in self._fetch():
                count += 1
                self._stats.seconds += 0.3 * (time.monotonic() - began - self._stats.seconds)  # a moving average
                self._confirm(page, began)
                if count >= self._max_pages:
                    # The listing costs more than it saves: read the rest one by one, and remember the number of pages.
                    self._stats.count = max(self._stats.count, count + 1)
                    return
                began = time.monotonic()
        except CallFailed:
            self._stats.skip = _RUNS_SKIPPED
            return  # names that were not listed are read
        self._stats.count = count

    def _confirm(self, page: Sequence[SecretProperties], at: float) -> None:
        self._last_page_at = time.monotonic()
        keys: list[str] = []
        for listed in page:
            key = self._unlisted.pop(fold(listed.name), None)
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
