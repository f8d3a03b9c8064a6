"""What Azure's documented limits make of a fleet, whatever asks it.

Resource Manager: 200 writes of a principal in a subscription, as which listKeys counts, and 10 more each second
(learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling). A vault: 300 new versions and
4,000 other calls in 10 s (learn.microsoft.com/azure/key-vault/general/service-limits).
"""

from __future__ import annotations

from tests.benchmarks.fleets import Fleet

ARM_BURST, ARM_RATE = 200, 10
_WINDOW_SECONDS = 10.0
_CREATES, _OTHERS = 300, 4000


def list_keys(fleet: Fleet) -> float:
    """The seconds below which no client can have asked for every account's keys, with full buckets at the start."""
    return max(0.0, (_largest(fleet.accounts, fleet.subscriptions) - ARM_BURST) / ARM_RATE)


def refill_seconds(fleet: Fleet) -> float:
    """How long it takes after a run until the buckets of all subscriptions are full again."""
    return min(ARM_BURST, _largest(fleet.accounts, fleet.subscriptions)) / ARM_RATE


def reads(fleet: Fleet) -> float:
    """The same for reading both secrets of every account."""
    return _window_seconds(2 * _largest(fleet.accounts, fleet.vaults), _OTHERS)


def writes(fleet: Fleet) -> float:
    """The same for writing both secrets of every account."""
    return _window_seconds(2 * _largest(fleet.accounts, fleet.vaults), _CREATES)


def _largest(accounts: int, places: int) -> int:
    return -(-accounts // places)


def _window_seconds(calls: int, limit: int) -> float:
    """The last of them may go as soon as the window before it is over."""
    return max(0, -(-calls // limit) - 1) * _WINDOW_SECONDS
