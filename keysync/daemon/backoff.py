"""Backoff: how long an account that keeps failing is skipped. Pure calculation on monotonic seconds.

After the first lasting failure in a row the account is not skipped. After the n-th it is skipped for a random time between 0
and 30 seconds doubled n - 2 times (full jitter). It is then tried in the next scheduled run, never earlier than its schedule.
With runs every 5 minutes the first four tries are on time, because a new role takes minutes to take effect.

The time is bounded by `BOUND` intervals of the account, counted from its last scheduled start. That is just below two: one
run is skipped, never two in a row, even if the failed run was late or was requested in between. Consumers are locked out until
a repaired account is noticed, and skipping only saves failed sign-ins and a few of the 10 calls a second that Resource Manager
grants. The bound also limits the Retry-After of one account; `azure.rate_limit` obeys the one of a subscription in full.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Final, NamedTuple

from keysync.failures import FailureKind, FailureRecord

BOUND: Final = 1.95
_BASE: Final = 30.0
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


def longest(failures: int, interval: float) -> float:
    """The longest random time after `failures` lasting failures in a row of an account that runs every `interval` seconds."""
    return 0.0 if failures < 2 else min(BOUND * interval, _BASE * 2.0 ** min(failures - 2, 64))


class _State(NamedTuple):
    failures: int  # lasting ones in a row
    retry_at: float


class Backoff:
    """The accounts that are skipped, by key, and until when."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._states: dict[str, _State] = {}

    def retry_at(self, key: str) -> float:
        """When `key` may take part in a run again; -inf if it did not fail last time."""
        state = self._states.get(key)
        return float("-inf") if state is None else state.retry_at

    def failed(self, key: str, record: FailureRecord, now: float, interval: float, since: float) -> None:
        """Records that `key`, which runs every `interval` seconds and was last due at `since`, failed at `now`.

        A transient failure does not count, but its Retry-After is obeyed, up to the bound.
        """
        before = self._states.get(key)
        failures = (before.failures if before else 0) + lasts(record)
        drawn = self._random.uniform(0.0, longest(failures, interval)) if lasts(record) else 0.0
        retry_at = min(now + max(record.retry_after or 0.0, drawn), since + BOUND * interval)
        self._states[key] = _State(failures, retry_at)

    def succeeded(self, key: str) -> None:
        """Records that `key` succeeded, and forgets its failures."""
        self._states.pop(key, None)

    def retry_now(self) -> None:
        """Lets every key take part in the next run. The numbers of failures are kept."""
        self._states = {key: state._replace(retry_at=float("-inf")) for key, state in self._states.items()}

    def keep(self, keys: Iterable[str]) -> None:
        """Forgets every key that is not in `keys`, as after a reload."""
        self._states = {key: self._states[key] for key in keys if key in self._states}
