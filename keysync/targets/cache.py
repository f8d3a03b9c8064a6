"""What this process last read of each secret, and when a listing of the vault is proof enough that it still stands.

A listing shows no version and no value, but the time of the last update in whole seconds and the tags
(learn.microsoft.com/rest/api/keyvault/secrets/get-secrets). So a value read once need not be read again for as long as
both are as they were, unless it was read in the very second of an update: another one may have followed within it.
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
"""The most secrets that a page of a listing holds."""

_SETTLED: Final = timedelta(seconds=2)
_READS_AT_ONCE: Final = 64
_READS_A_SECOND: Final = 400  # what Key Vault grants for long: 4,000 in 10 seconds
_BURST: Final = 4000
_ALWAYS_FINE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedSecret(StoredSecret):
    """One secret as it was read, `updated` then (UTC); `good_until` is in monotonic seconds.

    It is what was read and not something that holds it: there may be many thousands. It equals no other `StoredSecret`.
    """

    updated: datetime
    good_until: float

    @classmethod
    def of(cls, stored: StoredSecret, updated: datetime, good_until: float) -> Self:
        """What is kept of `stored`."""
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
    """Secrets by name without regard to case. Every value is read again within `verify_seconds`, each at a time of its own."""

    verify_seconds: float
    clock: Callable[[], float]
    uniform: Callable[[float, float], float] = random.uniform
    _known: dict[str, CachedSecret] = field(default_factory=dict)

    def keep(self, name: str, stored: StoredSecret, updated: datetime | None, answered: datetime | None) -> None:
        """Keeps what was read, if a later update will show; `answered` is the service's own clock at the reply, None where it did not say."""
        if updated is None or answered is None or answered - updated < _SETTLED:
            self.forget(name)
            return
        # Spread, so that a fleet's values are not all due in one run.
        good_until = self.clock() + self.uniform(0.5, 1.0) * self.verify_seconds
        self._known[name_key(name)] = CachedSecret.of(stored, updated, good_until)

    def forget(self, name: str) -> None:
        """What stands there is not known any more."""
        self._known.pop(name_key(name), None)

    def can_recall(self, name: str) -> bool:
        """Whether a listing could spare the reading of `name`."""
        known = self._known.get(name_key(name))
        return known is not None and self.clock() < known.good_until

    def last_read(self, name: str) -> StoredSecret | None:
        """What was read of `name` last, whether or not it still stands; None while it is being read again.

        It is what `recall` said still stands as long as nobody else reads: a secret is in one run at a time.
        """
        return self._known.get(name_key(name))

    def recall(self, listed: SecretProperties) -> StoredSecret | None:
        """What was read, if `listed` shows that it still stands."""
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
    """The name without regard to case."""
    lowered = fold(name)
    # If it is the same, the string that others keep too.
    return name if name == lowered else lowered


@lru_cache(maxsize=256)
def interned_time(moment: datetime) -> datetime:
    """One object for all equal times: they have whole seconds, most secrets are as they were made, and many were made in one run."""
    return moment


def most_pages(ours: int, page_seconds: float) -> int:
    """How many pages a listing may have to be worth more than reading `ours` secrets one by one.

    It must save requests, and must not take much longer: its pages follow one another, reads go side by side until Key
    Vault throttles them. `page_seconds` is what one page takes.
    """
    reading = max(math.ceil(ours / _READS_AT_ONCE) * page_seconds, (ours - _BURST) / _READS_A_SECOND)
    in_time = max(_ALWAYS_FINE_SECONDS, 4 * reading) / max(page_seconds, 0.001)
    return min(max(ours - 1, 0), int(in_time))
