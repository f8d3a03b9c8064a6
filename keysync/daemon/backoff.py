"""How long an account that keeps failing is left out of runs: pure, on seconds of a monotonic clock."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Final, Generic, TypeVar

from keysync.failures import FailureKind, FailureRecord

K = TypeVar("K", bound=Hashable)

# Until somebody acts, the next try meets them again.
_LASTING_KINDS: Final[frozenset[FailureKind]] = frozenset(
    {"authentication", "credential_unavailable", "shared_key_disabled", "challenge"}
)
_PASSING_STATUS: Final = frozenset({408, 429})


def lasts(record: FailureRecord) -> bool:
    """Whether the failure stays until somebody acts: a role, a name, a lock, a credential.

    What passes by itself (429, 408, 5xx, time-outs, the network) is no reason to leave the account out: the next run
    may well succeed, and what troubles a whole vault or credential is for the circuit breaker.
    """
    status = record.http_status
    if status is not None and (status >= 500 or status in _PASSING_STATUS):
        return False
    if record.kind in _LASTING_KINDS:
        return True
    return record.kind in {"cloud_error", "http_error"} and status is not None and status >= 400


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """How long to leave out; seconds throughout.

    After the first lasting failure in a row nothing: the next try is in the next ordinary pass. After the n-th it is
    a time drawn evenly from nothing to `base` doubled n - 2 times, `cap` at most; then the next ordinary pass tries
    again. So no try comes before its schedule.

    `cap` is in intervals of the account, counted from when its schedule last began a run, just below two: one run is left
    out, never two in a row, however late that run, or one that was asked for after it, has failed. Consumers stay
    locked out until a repaired account is noticed, and all that leaving it out saves is failed sign-ins and a few of the 10
    calls a second that Resource Manager grants. The same bounds what one account's Retry-After asks for; that of a whole
    subscription is kept to in full by `azure.pace`. `base` is 30 seconds, so that with runs every 5 minutes the first
    four tries are all on time: a new role takes minutes to be felt.
    """

    base: float = 30.0
    cap: float = 1.95

    def longest(self, failures: int, interval: float) -> float:
        """The upper end of what is drawn after `failures` lasting failures in a row of an account tried every `interval` s."""
        if failures < 2:
            return 0.0
        return min(self.bound(interval), self.base * 2.0 ** min(failures - 2, 64))

    def bound(self, interval: float) -> float:
        """The longest time for which an account tried every `interval` seconds is ever left out."""
        return self.cap * interval


@dataclass(frozen=True, slots=True)
class BackoffState:
    """An account that failed: how many lasting failures in a row, and from when on it is tried again."""

    failures: int
    retry_at: float


class Backoff(Generic[K]):
    """Who is left out, and until when. Whoever has not failed is always ready."""

    def __init__(self, random: Random, policy: BackoffPolicy | None = None) -> None:
        self._random = random
        self._policy = policy or BackoffPolicy()
        self._standing: dict[K, BackoffState] = {}

    def ready(self, key: K, now: float) -> bool:
        """Whether `key` takes part in a run that starts at `now`."""
        standing = self._standing.get(key)
        return standing is None or now >= standing.retry_at

    def failed(
        self, key: K, record: FailureRecord, now: float, interval: float, *, since: float | None = None
    ) -> BackoffState:
        """Notes that `key`, tried every `interval` seconds, failed at `now`; its schedule began at `since` (None: just now).

        A failure that runs counts for nothing, but its Retry-After is kept to, within the bound.
        """
        before = self._standing.get(key)
        failures = (before.failures if before else 0) + lasts(record)
        asked = record.retry_after or 0.0
        drawn = self._random.uniform(0.0, self._policy.longest(failures, interval)) if lasts(record) else 0.0
        latest = (now if since is None else since) + self._policy.bound(interval)
        standing = BackoffState(failures, min(now + max(asked, drawn), latest))
        self._standing[key] = standing
        return standing

    def succeeded(self, key: K) -> None:
        """Notes that `key` is well: it begins from nothing when it fails again."""
        self._standing.pop(key, None)

    def retry_now(self, key: K | None = None) -> None:
        """Lets `key`, or everyone, take part in the next run; how often they failed is not forgotten."""
        for one, standing in list(self._standing.items()):
            if key is None or one == key:
                self._standing[one] = BackoffState(standing.failures, 0.0)

    def keep(self, keys: Iterable[K]) -> None:
        """Forgets whoever is not among `keys`, as after a reload."""
        kept = set(keys)
        self._standing = {key: standing for key, standing in self._standing.items() if key in kept}

    def states(self) -> dict[K, BackoffState]:
        """Everyone who failed last time."""
        return dict(self._standing)
