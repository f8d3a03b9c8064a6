"""The shortest times for a fleet that Azure's documented limits allow any client.

Resource Manager: 200 writes per principal and subscription, and 10 more each second; listKeys counts as a write
(learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling). A vault: 300 new versions and
4,000 other calls in 10 s (learn.microsoft.com/azure/key-vault/general/service-limits).
"""

from __future__ import annotations

from tests.benchmarks.fleets import Fleet

ARM_BURST, ARM_RATE = 200, 10
_WINDOW_SECONDS = 10.0
_CREATES, _OTHERS = 300, 4000


def list_keys(fleet: Fleet) -> float:
    """The seconds that any client needs at least to list every account's keys, with full buckets at the start."""
    return max(0.0, (_largest(fleet.accounts, fleet.subscriptions) - ARM_BURST) / ARM_RATE)


def refill_seconds(fleet: Fleet) -> float:
    """The seconds after a run until the buckets of all subscriptions are full again."""
    return min(ARM_BURST, _largest(fleet.accounts, fleet.subscriptions)) / ARM_RATE


def reads(fleet: Fleet) -> float:
    """The least seconds to read both secrets of every account."""
    return _window_seconds(2 * _largest(fleet.accounts, fleet.vaults), _OTHERS)


def writes(fleet: Fleet) -> float:
    """The least seconds to write both secrets of every account."""
    return _window_seconds(2 * _largest(fleet.accounts, fleet.vaults), _CREATES)


def _largest(accounts: int, groups: int) -> int:
    return -(-accounts // groups)


def _window_seconds(calls: int, limit: int) -> float:
    """The last window need not end: its calls may start when the window before it is over."""
    return max(0, -(-calls // limit) - 1) * _WINDOW_SECONDS
