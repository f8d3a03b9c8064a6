"""The versions of a secret are counted in its tags, and a listing of the vault takes the place of many listings of versions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from keysync.emulator import Emulator, Fault
from keysync.targets.versions import COUNT_TAG
from tests.support.other_writers import add_version, marks, secret
from tests.support.runs import key
from tests.system.conftest import World

MakeWorld = Callable[..., World]

NAMES = ("alpha", "beta", "gamma", "delta")
PRIMARY = [{"name": name, "secrets": {"secondary": None}} for name in NAMES]
ACCOUNTS = [{"name": name, "primary": key(f"{name}-p"), "secondary": key(f"{name}-s")} for name in NAMES]
LONG_AGO = 1_700_000_000
FIRST = {COUNT_TAG: f"1 1 {datetime.fromtimestamp(LONG_AGO, UTC):%Y-%m-%dT%H:%M:%SZ}"}
"""The count in the tags of a first version that was written long ago."""


def holding(count: dict[str, str], **more: Any) -> dict[str, Any]:
    """A vault with an old value for each primary key, with `count` in the tags."""
    secrets = [secret(name, value="old", tags=marks(name) | count, created=LONG_AGO) for name in NAMES]
    return {"name": "main", "secrets": secrets, **more}


def requests(world: World, *operations: str) -> list[int]:
    """The numbers of requests of these operations."""
    return [world.running.do(lambda azure, name=name: azure.counts[name]) for name in operations]


def values(world: World, account: str) -> list[str]:
    """The values of the account's secret, one for each version."""
    return [version.value for version in world.versions("main", f"{account}-primary-key")]


def test_secrets_with_a_count_are_not_listed_one_by_one(make_quick_world: MakeWorld) -> None:
    """One read, one write and one read of the result for each, and one listing of the vault for all."""
    world = make_quick_world(*ACCOUNTS, vaults=(holding(FIRST),))
    world.configure(PRIMARY)
    assert set(world.sync().outcomes().values()) == {"updated"}
    assert requests(world, "setSecret", "listSecrets", "listVersions") == [4, 1, 0]
    assert requests(world, "getSecret") == [1 + 2 * len(NAMES)]  # and the first call to the vault
    (first, second) = world.versions("main", "alpha-primary-key")
    assert first.tags == marks("alpha") | FIRST
    assert second.tags[COUNT_TAG].startswith("2 1 ")


def test_secrets_without_a_count_are_listed_once(make_quick_world: MakeWorld) -> None:
    """An older keysync wrote such secrets."""
    world = make_quick_world(*ACCOUNTS, vaults=(holding({}),))
    world.configure(PRIMARY)
    assert set(world.sync().outcomes().values()) == {"updated"}
    assert requests(world, "setSecret", "listSecrets", "listVersions") == [4, 0, 4]
    assert world.versions("main", "alpha-primary-key")[-1].tags[COUNT_TAG].startswith("2 1 ")


def test_stale_reads_of_many_secrets_make_one_version_each(make_quick_world: MakeWorld) -> None:
    """The listing of the vault shows what another process has written, although the reads do not."""
    world = make_quick_world(*ACCOUNTS, vaults=(holding(FIRST),))
    world.configure(PRIMARY)
    fault = Fault(operation="setSecret", kind="stale", reads=12, times=4)
    world.running.do(lambda azure: azure.faults.add(fault))
    assert set(world.sync().outcomes().values()) == {"updated"}
    results = [set(world.sync().outcomes().values()) for _ in range(10)]
    assert results[0] == {"unknown"}
    assert results[-1] == {"unchanged"}
    for account in ACCOUNTS:
        assert values(world, account["name"]) == ["old", account["primary"]]


def test_a_version_with_copied_tags_counts(make_quick_world: MakeWorld) -> None:
    """Another tool keeps the tags of the secret. Its versions are changes of the day like all others."""
    world = make_quick_world(*ACCOUNTS, vaults=(holding(FIRST),))
    world.configure(PRIMARY, limits={"changes_per_day": 3})

    def write_thrice(azure: Emulator) -> None:
        for number in range(3):
            add_version(azure, "main/alpha-primary-key", f"theirs-{number}", marks("alpha") | FIRST)

    world.running.do(write_thrice)
    assert world.sync().outcomes() == {
        f"main/{name}-primary-key": "refused" if name == "alpha" else "updated" for name in NAMES
    }


@pytest.mark.parametrize("limit", [2, 5])
def test_the_limit_of_a_day_is_reached_by_the_count(make_quick_world: MakeWorld, limit: int) -> None:
    """keysync's own versions of a day are counted exactly near the limit."""
    world = make_quick_world(*ACCOUNTS, vaults=(holding(FIRST),))
    world.configure(PRIMARY, limits={"changes_per_day": limit})
    outcomes: list[str] = []
    for _ in range(limit + 1):
        world.running.do(lambda azure: azure.state.regenerate("alpha", "Primary"))
        outcomes.append(world.sync().outcomes()["main/alpha-primary-key"])
    assert outcomes == ["updated"] * limit + ["refused"]
