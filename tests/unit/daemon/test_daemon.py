"""How the daemon sees the accounts of a configuration: which run together, and how often."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from keysync.config.model import Schedule
from keysync.daemon.daemon import schedules_of
from keysync.daemon.supervisor import patience_of
from keysync.secret.redact import Redactor
from keysync.sources.shard import Shard
from keysync.sync.runtime import Shared
from tests.support.runtimes import opened
from tests.support.settings import config_of

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
DISCOVER = [{"subscription_id": SUBSCRIPTION, "vaults": ["main"]}]


def configured(*schedules: str | None, **more: Any) -> Any:
    """A configuration with one account per schedule; None is the general schedule, every five minutes."""
    accounts = [
        {"subscription_id": SUBSCRIPTION, "resource_group": "rg", "name": f"account{number}", "vaults": ["main"]}
        | ({"schedule": {"every": every}} if every else {})
        for number, every in enumerate(schedules)
    ]
    return config_of(
        {
            "vaults": {"main": {"url": "https://main.vault.azure.net"}},
            **({"accounts": accounts} if accounts else {}),
            **more,
        }
    )


@pytest.mark.parametrize(
    ("schedules", "shard", "more", "expected"),
    [
        ((None, None), None, {}, ["5m"]),
        ((None, "1h", "1h"), None, {}, ["5m", "1h"]),
        (("1h",), None, {}, ["1h"]),
        (("1h",), None, {"discover": DISCOVER}, ["5m", "1h"]),
        (("1h",), Shard(0, 1), {}, ["5m", "1h"]),
        ((), None, {"discover": DISCOVER}, ["5m"]),
    ],
)
async def test_each_schedule_of_an_account_fires(
    schedules: tuple[str | None, ...], shard: Shard | None, more: dict[str, Any], expected: list[str]
) -> None:
    """With discovery or shards the general schedule fires too, if need be for no account."""
    async with opened(configured(*schedules, **more), Shared(Redactor(), shard=shard)) as (_, runtime):
        assert sorted(schedules_of(runtime), key=lambda schedule: schedule.every or timedelta.max) == [
            Schedule(every={"5m": timedelta(minutes=5), "1h": timedelta(hours=1)}[every]) for every in expected
        ]


@pytest.mark.parametrize(("seconds", "patience"), [([300, 400], 15.0), ([300, 10], 0.5), ([], 15.0)])
def test_the_limits_wait_a_twentieth_of_the_shortest_interval(seconds: list[int], patience: float) -> None:
    """But at least half a second."""
    assert patience_of(timedelta(seconds=each) for each in seconds) == patience
