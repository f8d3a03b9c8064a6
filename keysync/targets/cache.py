"""The cache of secrets that this process read, validated by listings of the vault.

A listing has no version and no value, but the tags and the time of the last update in whole seconds
(learn.microsoft.com/rest/api/keyvault/secrets/get-secrets). While both are unchanged, a cached secret need not be read again,
unless it was read in the same second as an update: another update may have followed in that second.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, Self

from keysync.names import fold
from keysync.targets.interface import SecretProperties, StoredSecret

PAGE: Final = 25
"""The largest page of a listing that Key Vault allows, in secrets."""

_SAME_SECOND: Final = timedelta(seconds=2)
_READS_AT_ONCE: Final = 64
_READS_A_SECOND: Final = 400  # Key Vault's sustained limit: 4,000 in 10 seconds
_BURST: Final = 4000
_ALWAYS_FINE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedSecret(StoredSecret):
    """A secret as it was read. `updated` is its time of update then (UTC); `good_until` is in monotonic seconds.

    A subclass, not a wrapper, because there may be many thousands. It never equals a `StoredSecret`.
    """

    updated: datetime
    good_until: float

    @classmethod
    def of(cls, stored: StoredSecret, updated: datetime, good_until: float) -> Self:
        """The cache entry for `stored`."""
        return cls(
            version=stored.version,
            fingerprint=stored.fingerprint,
            tags=stored.tags,
            content_type=stored.content_type,
            managed=stored.managed,
            expires=stored.expires,
            created=stored.created,
            updated=interned_time(updated),
            good_until=good_until,
        )


@dataclass(slots=True)
class SecretCache:
    """Secrets by case-insensitive name. Each value is read again within `verify_seconds`, at a random time."""

    verify_seconds: float
    clock: Callable[[], float]
    uniform: Callable[[float, float], float] = random.uniform
    _known: dict[str, CachedSecret] = field(default_factory=dict[str, CachedSecret])

    def keep(self, name: str, stored: StoredSecret, updated: datetime | None, answered: datetime | None) -> None:
        """Caches a secret, if a listing will show its next update. `answered` is the service's time of the reply; None if unknown."""
        if updated is None or answered is None or answered - updated < _SAME_SECOND:
            self.forget(name)
            return
        # Random, so that the values of a fleet do not all expire in one run.
        good_until = self.clock() + self.uniform(0.5, 1.0) * self.verify_seconds
        self._known[name_key(name)] = CachedSecret.of(stored, updated, good_until)

    def forget(self, name: str) -> None:
        """Removes a secret from the cache."""
        self._known.pop(name_key(name), None)

    def is_usable(self, name: str) -> bool:
        """Whether a listing could save the read of `name`."""
        known = self._known.get(name_key(name))
        return known is not None and self.clock() < known.good_until

    def last_read(self, name: str) -> StoredSecret | None:
        """The cached secret, whether or not it is current; None while it is being read again.

        A secret is in one run at a time, so after `confirmed` this is the confirmed secret.
        """
        return self._known.get(name_key(name))

    def confirmed(self, listed: SecretProperties) -> StoredSecret | None:
        """The cached secret if `listed` shows that it is unchanged, else None."""
        known = self._known.get(name_key(listed.name))
        if known is None or self.clock() >= known.good_until:
            return None
        same = (
            listed.enabled
            and listed.updated == known.updated
            and listed.managed == known.managed
            and listed.content_type == known.content_type
            and listed.expires == known.expires
            and listed.tags == known.tags
        )
        return known if same else None


def name_key(name: str) -> str:
    """The case-insensitive key of a name."""
    lowered = fold(name)
    # The same object if possible, because other objects keep it too.
    return name if name == lowered else lowered


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
