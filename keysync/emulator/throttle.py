"""Token buckets with the limits that Azure documents.

Resource Manager: learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass

Clock = Callable[[], float]


@dataclass(frozen=True)
class Limit:
    """The size of a bucket, and the tokens that it gains per second."""

    burst: float
    per_second: float


@dataclass(frozen=True)
class ArmLimit(Limit):
    """A limit of Resource Manager for a subscription, with its `name` in headers. A global one is for all callers together."""

    name: str
    is_global: bool = False


def _arm_limits(kind: str, burst: float, per_second: float) -> tuple[ArmLimit, ArmLimit]:
    """The limit of one caller, and that of all callers, which is 15 times as large."""
    return ArmLimit(burst, per_second, kind), ArmLimit(15 * burst, 15 * per_second, f"global-{kind}", is_global=True)


ARM_LIMITS = {
    "read": _arm_limits("reads", 250, 25),
    "write": _arm_limits("writes", 200, 10),
    "delete": _arm_limits("deletes", 200, 10),
}
# Key Vault counts in windows of 10 s. A bucket with the same mean rate is as strict over time.
VAULT_CREATES = Limit(300, 30)
VAULT_OTHERS = Limit(4000, 400)
# Resource Graph counts a user's queries in windows of 5 s.
GRAPH_QUERIES = Limit(15, 3)


@dataclass(frozen=True)
class ThrottleDecision:
    """Whether a call is allowed, the tokens that remain, and the whole seconds to wait if it is not."""

    allowed: bool
    remaining: int
    retry_after: int


class TokenBuckets:
    """One bucket for each key. A bucket starts full."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._levels: dict[Hashable, tuple[float, float]] = {}

    def take(self, key: Hashable, limit: Limit) -> ThrottleDecision:
        """Take one token from the bucket of `key`, if it has one."""
        now = self._clock()
        level, since = self._levels.get(key, (limit.burst, now))
        level = min(limit.burst, level + max(0.0, now - since) * limit.per_second)
        if level < 1:
            self._levels[key] = (level, now)
            return ThrottleDecision(False, 0, max(1, math.ceil((1 - level) / limit.per_second)))
        self._levels[key] = (level - 1, now)
        return ThrottleDecision(True, int(level - 1), 0)
