"""Shards of accounts: every command accepts a shard, and the daemon serves one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from keysync.sources.shard import Shard
from tests.support.azure import GROUP, SUBSCRIPTION
from tests.support.daemon import serving
from tests.support.other_writers import remove_account
from tests.system.conftest import World

NAMES = [f"account{number}" for number in range(8)]
OPTIONS: dict[str, Any] = {"schedule": {"every": "1h"}, "listen": "127.0.0.1:0"}
_SUBSCRIPTIONS = [f"{number}2222222-2222-3333-4444-555555555555" for number in range(10)]
MakeWorld = Callable[..., World]


def resource_id(name: str, subscription: str = SUBSCRIPTION) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/{GROUP}/providers/Microsoft.Batch/batchAccounts/{name}"


def signed_in(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Sets this process's environment as for a daemon."""
    for name, value in world.running.environ.items():
        monkeypatch.setenv(name, value)
    return world


def share(index: int, count: int = 2) -> set[str]:
    return {name for name in NAMES if Shard(index, count).has(resource_id(name))}


def test_each_command_keeps_to_its_shard(make_quick_world: MakeWorld) -> None:
    """By option or by environment variable; suggested commands name the shard."""
    world = make_quick_world(*NAMES)
    world.configure(NAMES)
    indexed = {"KEYSYNC_SHARDS": "2", "JOB_COMPLETION_INDEX": "1"}
    listed = json.loads(world.run("accounts", "--output", "json", env=indexed).out)["accounts"]
    assert {item["account"].rpartition("/")[2] for item in listed} == share(1)
    plan = world.run("plan", "--output", "json", "--shards", "2", env={"HOSTNAME": "keysync-1"})
    assert plan.outcomes().keys() == {f"main/{name}-{key}-key" for name in share(1) for key in ("primary", "secondary")}
    assert world.sync(env=indexed).outcomes().keys() == plan.outcomes().keys()
    check = json.loads(world.run("check", "--output", "json", "--shard", "0/2").out)["findings"]
    checked = {
        finding["subject"].removeprefix("account ") for finding in check if finding["subject"].startswith("account ")
    }
    assert checked == share(0)
    adopt = world.run("adopt", "--output", "json", "--shard", "0/2")
    assert (adopt.code, adopt.report["items"]) == (0, [])


@pytest.mark.parametrize("command", ["run", "sync", "plan", "check", "accounts", "adopt"])
def test_a_wrong_shard_is_a_usage_error_of_each_command(make_quick_world: MakeWorld, command: str) -> None:
    """Before the first request; the message names the variable."""
    world = make_quick_world("account0")
    world.configure(["account0"])
    ran = world.run(command, env={"KEYSYNC_SHARDS": "2", "JOB_COMPLETION_INDEX": "2"})
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "keysync: JOB_COMPLETION_INDEX=2: KEYSYNC_SHARDS=2 has the shards 0 to 1\n"


@pytest.mark.parametrize("discovered", [False, True])
async def test_the_daemon_serves_its_shard(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, discovered: bool
) -> None:
    """The shard's listed and discovered accounts; the page shows no account of another shard."""
    world = signed_in(make_world(*NAMES), monkeypatch)
    discover = [{"subscription_id": SUBSCRIPTION, "vaults": ["main"]}]
    world.configure([] if discovered else NAMES, **OPTIONS, **({"discover": discover} if discovered else {}))
    async with serving(world.path, shard=Shard(0, 2)) as daemon:
        status = await daemon.until_status(lambda status: status["counts"]["in_sync"] == 2 * len(share(0)))
        assert {account["name"] for account in status["accounts"]} == share(0)
    assert {name for name in NAMES if world.versions("main", f"{name}-primary-key")} == share(0)


@pytest.mark.parametrize("index", [0, 1])
def test_a_conflict_between_two_shards_is_refused_in_both(make_quick_world: MakeWorld, index: int) -> None:
    """Each refuses its own account and names the other's. `--account` accepts an account of another shard, and rejects
    an unknown one.
    """
    other = next(
        subscription for subscription in _SUBSCRIPTIONS if Shard(1, 2).has(resource_id("account0", subscription))
    )
    mine = next(
        subscription for subscription in _SUBSCRIPTIONS if Shard(0, 2).has(resource_id("account0", subscription))
    )
    accounts = [resource_id("account0", subscription) for subscription in (mine, other)]
    world = make_quick_world(*({"name": "account0", "subscription_id": subscription} for subscription in (mine, other)))
    world.configure([], discover=[{"subscriptions": [mine, other], "vaults": ["main"]}])
    listed = world.run("accounts", "--output", "json", "--shard", f"{index}/2")
    assert listed.code == 1
    (line,) = json.loads(listed.out)["accounts"]
    assert (line["account"], line["state"]) == (accounts[index], "refused")
    assert line["reason"].startswith(f"{accounts[1 - index]} (discover[0]) would write the secret")
    items = world.sync("--shard", f"{index}/2").report["items"]
    assert {(item["account"], item["outcome"]) for item in items} == {(accounts[index], "refused")}
    named = world.run("plan", "--shard", f"{index}/2", "--account", accounts[1 - index], "--output", "json")
    assert (named.code, named.report["items"]) == (0, [])
    assert world.run("plan", "--shard", f"{index}/2", "--account", "nobody").code == 2


async def test_a_shard_removes_only_its_own_orphans(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets that another shard serves are no orphans, and that shard's orphans are left to it; also for a shard
    without accounts.
    """
    world = signed_in(make_world(*NAMES), monkeypatch)
    safe = {"owner": "tokyo", "limits": {"removal_percent": 100}}
    world.configure(NAMES, **OPTIONS, **safe)
    assert world.sync().code == 0
    gone = [min(share(index)) for index in range(2)]
    for name in gone:
        world.running.do(lambda azure, name=name: remove_account(azure, name))
    kept = [name for name in NAMES if name in share(1) and name not in gone]
    world.configure(kept, **{**OPTIONS, "schedule": {"every": "1s"}}, **safe, orphans="disable")
    enabled = lambda name: world.versions("main", f"{name}-primary-key")[-1].enabled  # noqa: E731
    async with serving(world.path, shard=Shard(0, 2)) as daemon:
        await daemon.until(lambda: not enabled(gone[0]))
        assert (await daemon.status())["accounts"] == []
        assert (await daemon.get("/readyz")).status == 200
    assert [enabled(name) for name in gone] == [False, True]
    assert all(enabled(name) for name in kept)
