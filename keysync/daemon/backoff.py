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

from dataclasses import dataclass
from random import Random
from typing import Final

from keysync.failures import FailureKind, FailureRecord

BOUND: Final = 1.95
_BASE: Final = 30.0
_NEVER: Final = float("-inf")
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


@dataclass(slots=True)
class Backoff:
    """The lasting failures in a row of one account, and when it may take part in a run again (-inf: at once)."""

    failures: int = 0
    retry_at: float = _NEVER

    def failed(self, record: FailureRecord, now: float, interval: float, since: float, random: Random) -> None:
        """Records that the account, which runs every `interval` seconds and was last due at `since`, failed at `now`.

        A transient failure does not count, but its Retry-After is obeyed, up to the bound.
        """
        drawn = 0.0
        if lasts(record):
            self.failures += 1
            drawn = random.uniform(0.0, longest(self.failures, interval))  # nosec B311  # when to try again is no secret
        self.retry_at = min(now + max(record.retry_after or 0.0, drawn), since + BOUND * interval)

    def succeeded(self) -> None:
        """Records that the account succeeded, and forgets its failures."""
        self.failures, self.retry_at = 0, _NEVER

    def retry_now(self) -> None:
        """Lets the account take part in the next run. The number of failures is kept."""
        self.retry_at = _NEVER
