"""Which accounts of a configuration run together, and how long a run over them waits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from keysync.config.model import Account, Config, Schedule
from keysync.daemon.fire_times import interval_of
from keysync.daemon.scheduler import group_by_schedule, utc_now
from keysync.sync.runtime import Runtime

_LEAST_PATIENCE: Final = 0.5


def groups_of(runtime: Runtime) -> dict[Schedule, list[Account]]:
    """The accounts of `runtime` by schedule."""
    config = runtime.config
    groups = group_by_schedule(runtime.accounts, lambda account: account.schedule or config.schedule)
    if config.discover or runtime.shared.shard is not None:
        # A run without accounts still lists accounts, searches for orphans and shows that the daemon lives.
        groups.setdefault(config.schedule, [])
    return groups


def patience_of(config: Config, accounts: Sequence[Account]) -> float:
    """A twentieth of the shortest interval in seconds, so that one account that hangs does not delay others."""
    intervals = {interval_of(account.schedule or config.schedule, utc_now()) for account in accounts}
    return max(min(intervals, default=timedelta(minutes=5)).total_seconds() / 20, _LEAST_PATIENCE)
