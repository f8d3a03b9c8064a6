"""How the daemon sees the accounts of a configuration: which run together, and how often."""

from __future__ import annotations

from typing import Any

import pytest

from keysync.daemon.daemon import groups_of
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
    ("schedules", "shard", "more", "sizes"),
    [
        ((None, None), None, {}, [2]),
        ((None, "1h"), None, {}, [1, 1]),
        (("1h",), None, {}, [1]),
        (("1h",), None, {"discover": DISCOVER}, [1, 0]),
        (("1h",), Shard(0, 1), {}, [1, 0]),
        ((), None, {"discover": DISCOVER}, [0]),
    ],
)
async def test_accounts_are_grouped_by_schedule(
    schedules: tuple[str | None, ...], shard: Shard | None, more: dict[str, Any], sizes: list[int]
) -> None:
    """With discovery or shards the general schedule also has a group, if need be an empty one."""
    async with opened(configured(*schedules, **more), Shared(Redactor(), shard=shard)) as (_, runtime):
        assert [len(members) for members in groups_of(runtime).values()] == sizes


@pytest.mark.parametrize(
    ("schedules", "numbers", "patience"), [((None, "10s"), [0], 15.0), ((None, "10s"), [0, 1], 0.5), ((), [], 15.0)]
)
def test_the_limits_wait_a_twentieth_of_the_shortest_interval(
    schedules: tuple[str | None, ...], numbers: list[int], patience: float
) -> None:
    """But at least half a second."""
    config = configured(*schedules, **({} if schedules else {"discover": DISCOVER}))
    assert patience_of(config, [config.accounts[number] for number in numbers]) == patience
