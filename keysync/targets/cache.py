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
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
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


@dataclass(frozen=True, slots=True)
class _Cached:
    """A secret, its time of update when it was read (UTC), and until when it counts (monotonic seconds)."""

    stored: StoredSecret
    updated: datetime
    good_until: float


@dataclass(slots=True)
class SecretCache:
    """Secrets by case-insensitive name. Each value is read again within `verify_seconds`, at a random time.

    `page_seconds`: how long a page of a listing takes. `least_pages`: how many pages a listing has, as far as known.
    """

    verify_seconds: float
    clock: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = random.uniform
    page_seconds: float = 0.05
    least_pages: int = 1
    _known: dict[str, _Cached] = field(default_factory=dict[str, _Cached])

    def keep(self, name: str, stored: StoredSecret, updated: datetime | None, answered: datetime | None) -> None:
        """Caches a secret, if a listing will show its next update. `answered` is the service's time of the reply; None if unknown."""
        if updated is None or answered is None or answered - updated < _SAME_SECOND:
            self.forget(name)
            return
        # Random, so that the values of a fleet do not all expire in one run.
        good_until = self.clock() + self.uniform(0.5, 1.0) * self.verify_seconds
        self._known[fold(name)] = _Cached(stored, updated, good_until)

    def forget(self, name: str) -> None:
        """Removes a secret from the cache."""
        self._known.pop(fold(name), None)

    def is_usable(self, name: str) -> bool:
        """Whether a listing could save the read of `name`."""
        known = self._known.get(fold(name))
        return known is not None and self.clock() < known.good_until

    def has(self, name: str, stored: StoredSecret) -> bool:
        """Whether `stored` is still the cached secret: it is not being read again, and was not replaced."""
        known = self._known.get(fold(name))
        return known is not None and known.stored is stored

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


def max_pages(cached: int, page_seconds: float) -> int:
    """The number of pages up to which a listing is better than reading `cached` secrets one by one.

    A listing must save requests and must not take much longer. Its pages are fetched one after another; reads run in
    parallel until Key Vault throttles them. `page_seconds` is the time for one page.
    """
    reading = max(math.ceil(cached / _READS_AT_ONCE) * page_seconds, (cached - _BURST) / _READS_A_SECOND)
    in_time = max(_ALWAYS_FINE_SECONDS, 4 * reading) / max(page_seconds, 0.001)
    return min(max(cached - 1, 0), int(in_time))


class ListValidation:
    """A `CacheValidation` whose listing runs in its own task. A caller waits at most for the page of its name."""

    def __init__(
        self,
        names: Collection[str],
        cache: SecretCache,
        fetch: Callable[[], AsyncIterator[Sequence[SecretProperties]]],
        on_confirmed: Callable[[str, StoredSecret, float], None] = lambda _name, _stored, _at: None,
    ) -> None:
        self._cache = cache
        self._on_confirmed = on_confirmed
        # One future for each name: a page wakes only the callers of its own names.
        self._listed: dict[str, asyncio.Future[tuple[StoredSecret, float] | None]] = {}
        self._task: asyncio.Task[None] | None = None
        usable = {key for key in map(fold, names) if cache.is_usable(key)}
        most = max_pages(len(usable), cache.page_seconds)
        if cache.least_pages <= most:
            self._listed = {key: asyncio.get_running_loop().create_future() for key in usable}
            self._task = asyncio.create_task(self._list(fetch(), most), name="list validation")
            self._task.add_done_callback(self._read_the_rest)

    async def confirmed(self, name: str) -> tuple[StoredSecret, float] | None:
        """The cached secret and the time of its listing if the listing confirms it, else None."""
        key = fold(name)
        listed = self._listed.get(key)
        if listed is None:
            return None
        await asyncio.wait({listed})
        confirmed = listed.result()
        # Forgotten or replaced: another caller reads it, and may see a later version than the listing.
        if confirmed is None or not self._cache.has(key, confirmed[0]):
            return None
        self._on_confirmed(key, *confirmed)
        return confirmed

    async def close(self) -> None:
        """Cancels the listing if it is still active."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _list(self, pages: AsyncIterator[Sequence[SecretProperties]], most: int) -> None:
        cache, count = self._cache, 0
        # A listing that fails, hangs or has too many pages costs more than it saves: other names are read one by one.
        with suppress(CallFailed, TimeoutError):
            while count < most:
                began = time.monotonic()
                async with asyncio.timeout(max(_MIN_WAIT, 4 * cache.page_seconds)):
                    page = await anext(pages, None)
                if page is None:
                    cache.least_pages = max(count, 1)
                    return
                count += 1
                cache.page_seconds += 0.3 * (time.monotonic() - began - cache.page_seconds)  # a moving average
                for each in page:
                    listed = self._listed.get(fold(each.name))
                    if listed is not None and not listed.done():
                        stored = cache.confirmed(each)
                        listed.set_result(None if stored is None else (stored, began))
            cache.least_pages = max(cache.least_pages, count + 1)

    def _read_the_rest(self, _task: asyncio.Task[None]) -> None:
        for listed in self._listed.values():
            if not listed.done():
                listed.set_result(None)
