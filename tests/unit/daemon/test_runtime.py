"""Which accounts a runtime serves, in which groups, and what the runs over them wait for and search."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from keysync.config.model import Account, Config
from keysync.daemon.runtime import Runtime
from keysync.sources.shard import Shard
from keysync.sync.inventory import Inventory
from keysync.sync.orphans import MissingCounters
from tests.support.settings import config_of

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"


class Runs:
    """Keeps the arguments of each run."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []

    def make_run(self, accounts: Any, observer: Any, stop: Any, **arguments: Any) -> None:
        self.made.append(arguments)

    def orphan_search(self, inventory: Any, **arguments: Any) -> str:
        return "search"


class App:
    """An app that opens nothing."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.accounts = config.accounts
        self.runs = Runs()

    async def cover(self, accounts: tuple[Account, ...]) -> None:
        self.accounts = accounts


def runtime_of(*schedules: str | None, shard: Shard | None = None, **more: Any) -> Any:
    """A runtime with one account per schedule; None is the general schedule, every five minutes."""
    accounts = [
        {"subscription_id": SUBSCRIPTION, "resource_group": "rg", "name": f"account{number}", "vaults": ["main"]}
        | ({"schedule": {"every": every}} if every else {})
        for number, every in enumerate(schedules)
    ]
    config = config_of(
        {
            "vaults": {"main": {"url": "https://main.vault.azure.net"}},
            **({"accounts": accounts} if accounts else {}),
            **more,
        }
    )
    app: Any = App(config)
    observer: Any = None
    inventory = Inventory(config.accounts)
    return Runtime(
        app, inventory, observer, asyncio.Event(), None, MissingCounters(), shard, "-c FILE", AsyncExitStack()
    )


DISCOVER = [{"subscription_id": SUBSCRIPTION, "vaults": ["main"]}]


@pytest.mark.parametrize(
    ("schedules", "more", "sizes"),
    [
        ((None, None), {}, [2]),
        ((None, "1h"), {}, [1, 1]),
        (("1h",), {}, [1]),
        (("1h",), {"discover": DISCOVER}, [1, 0]),
        (("1h",), {"shard": Shard(0, 1)}, [1, 0]),
        ((), {"discover": DISCOVER}, [0]),
    ],
)
async def test_accounts_are_grouped_by_schedule(
    schedules: tuple[str | None, ...], more: dict[str, Any], sizes: list[int]
) -> None:
    """With discovery or shards the general schedule also has a group, if need be an empty one."""
    assert [len(members) for members in runtime_of(*schedules, **more).groups.values()] == sizes


@pytest.mark.parametrize(
    ("schedules", "numbers", "patience"), [((None, "10s"), [0], 15.0), ((None, "10s"), [0, 1], 0.5), ((), [], 15.0)]
)
async def test_the_limits_wait_a_twentieth_of_the_shortest_interval(
    schedules: tuple[str | None, ...], numbers: list[int], patience: float
) -> None:
    """But at least half a second."""
    runtime = runtime_of(*schedules, **({} if schedules else {"discover": DISCOVER}))
    runtime.make_run([runtime.accounts[number] for number in numbers], busy=0)
    assert [run["patience"] for run in runtime.app.runs.made] == [patience]


@pytest.mark.parametrize(
    ("schedules", "numbers", "searches"),
    [((None, "1h"), [0], True), ((None, "1h"), [1], False), (("1h", "2h"), [1], True), ((None,), [], True)],
)
async def test_only_runs_of_the_general_schedule_search_for_orphans(
    schedules: tuple[str | None, ...], numbers: list[int], searches: bool
) -> None:
    """If no account has the general schedule, every run searches."""
    runtime = runtime_of(*schedules)
    runtime.make_run([runtime.accounts[number] for number in numbers], busy=2)
    (run,) = runtime.app.runs.made
    assert (run["orphans"] is not None, run["preflight"] is not None) == (searches, searches)
    assert (run["busy"], run["selection"].options) == (2, "-c FILE")


async def test_an_inventory_with_other_accounts_differs_until_it_is_covered() -> None:
    """The order of accounts counts too."""
    runtime = runtime_of(None, None)
    first, second = runtime.accounts
    assert not runtime.differs(Inventory((first, second)))
    other = Inventory((second,))
    assert runtime.differs(other)
    await runtime.cover(other)
    assert runtime.accounts == (second,)
    assert not runtime.differs(other)
