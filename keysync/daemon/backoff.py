"""Backoff: how long an account that keeps failing is skipped. Pure calculation on monotonic seconds."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Final, Generic, TypeVar

from keysync.failures import FailureKind, FailureRecord

K = TypeVar("K", bound=Hashable)

# The next try fails in the same way until an operator acts.
_LASTING_KINDS: Final[frozenset[FailureKind]] = frozenset(
    {"authentication", "credential_unavailable", "shared_key_disabled", "challenge"}
)
_TRANSIENT_STATUS: Final = frozenset({408, 429})


def lasts(record: FailureRecord) -> bool:
    """Whether the failure lasts until an operator acts: a missing role, a wrong name, a lock, a credential.

    Transient failures (429, 408, 5xx, time-outs, the network) are no reason to skip the account: the next run may succeed.
    Failures of a whole vault or credential are handled by the circuit breaker.
    """
    status = record.http_status
    if status is not None and (status >= 500 or status in _TRANSIENT_STATUS):
        return False
    if record.kind in _LASTING_KINDS:
        return True
    return record.kind in {"cloud_error", "http_error"} and status is not None and status >= 400


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """How long to skip an account; seconds throughout.

    After the first lasting failure in a row the account is not skipped. After the n-th it is skipped for a random time
    between 0 and `base` doubled n - 2 times (full jitter), at most `cap`. It is then tried in the next scheduled run, never
    earlier than its schedule.

    `cap` is in intervals of the account, counted from its last scheduled start. It is just below two: one run is skipped,
    never two in a row, even if the failed run was late or was requested in between. Consumers are locked out until a
    repaired account is noticed, and skipping only saves failed sign-ins and a few of the 10 calls a second that Resource
    Manager grants. `cap` also limits the Retry-After of one account; `azure.rate_limit` obeys the one of a subscription in
    full. `base` is 30 seconds: with runs every 5 minutes the first four tries are on time, because a new role takes minutes
    to take effect.
    """

    base: float = 30.0
    cap: float = 1.95

    def longest(self, failures: int, interval: float) -> float:
        """The longest random time after `failures` lasting failures in a row of an account that runs every `interval` seconds."""
        if failures < 2:
            return 0.0
        return min(self.bound(interval), self.base * 2.0 ** min(failures - 2, 64))

    def bound(self, interval: float) -> float:
        """The longest time, in seconds, for which an account that runs every `interval` seconds is skipped."""
        return self.cap * interval


@dataclass(frozen=True, slots=True)
class BackoffState:
    """An account that failed: its lasting failures in a row, and when it may run again (monotonic seconds)."""

    failures: int
    retry_at: float


class Backoff(Generic[K]):
    """The accounts that are skipped, and until when. An account without a failure is always ready."""

    def __init__(self, random: Random, policy: BackoffPolicy | None = None) -> None:
        self._random = random
        self._policy = policy or BackoffPolicy()
        self._states: dict[K, BackoffState] = {}

    def ready(self, key: K, now: float) -> bool:
        """Whether `key` takes part in a run that starts at `now`."""
        state = self._states.get(key)
        return state is None or now >= state.retry_at

    def failed(
        self, key: K, record: FailureRecord, now: float, interval: float, *, since: float | None = None
    ) -> BackoffState:
        """Records that `key`, which runs every `interval` seconds, failed at `now`. `since` is its scheduled start (None: `now`).

        A transient failure does not count, but its Retry-After is obeyed, up to the bound.
        """
        before = self._states.get(key)
        failures = (before.failures if before else 0) + lasts(record)
        retry_after = record.retry_after or 0.0
        drawn = self._random.uniform(0.0, self._policy.longest(failures, interval)) if lasts(record) else 0.0
        latest = (now if since is None else since) + self._policy.bound(interval)
        state = BackoffState(failures, min(now + max(retry_after, drawn), latest))
        self._states[key] = state
        return state

    def succeeded(self, key: K) -> None:
        """Records that `key` succeeded, and forgets its failures."""
        self._states.pop(key, None)

    def retry_now(self, key: K | None = None) -> None:
        """Lets `key`, or every key, take part in the next run. The number of failures is kept."""
        for one, state in list(self._states.items()):
            if key is None or one == key:
                self._states[one] = BackoffState(state.failures, 0.0)

    def keep(self, keys: Iterable[K]) -> None:
        """Forgets every key that is not in `keys`, as after a reload."""
        kept = set(keys)
        self._states = {key: state for key, state in self._states.items() if key in kept}

    def states(self) -> dict[K, BackoffState]:
        """The state of each key that failed last time."""
        return dict(self._states)
