"""Runs the commands of docs/rotation.md unchanged: an application that follows the guide always has a live key."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import walkthrough
from tests.support.azure import RunningAzure
from tests.system.conftest import World, clean_environment

ACCOUNT, GROUP, VAULT = "sampleacct", "default-azurebatch-japaneast", "kv-render"
KEYS = {"primary": 0, "secondary": 1}

Walk = Callable[[str], str]


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """The account and the vault of the guide, in sync."""
    world = make_world({"name": ACCOUNT, "resource_group": GROUP}, vaults=(VAULT,))
    world.configure([{"name": ACCOUNT, "resource_group": GROUP, "vaults": [VAULT]}])
    assert world.sync().code == 0
    return world


@pytest.fixture
def walk(world: World, tmp_path: Path) -> Walk:
    """Runs one block of the guide, which must succeed, and returns its output."""
    ready = tmp_path / "ready.json"
    ready.write_bytes(world.running.azure.endpoints.ready_file())
    environ = {
        **clean_environment(),
        **world.running.environ,
        "PATH": f"{walkthrough.programs(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}",
        "KEYSYNC_CONFIG": str(world.path),
        "AZ_READY_FILE": str(ready),
    }

    def run(block: str) -> str:
        done = walkthrough.run(f"account={ACCOUNT} group={GROUP} vault={VAULT}\n{block}", environ, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def live(azure: RunningAzure, key: str) -> str:
    return azure.do(lambda emulator: emulator.state.keys(ACCOUNT))[KEYS[key]]


def stored(world: World, key: str) -> str:
    value: str = world.versions(VAULT, f"{ACCOUNT}-{key}-key")[-1].value
    return value


def test_an_application_that_follows_the_guide_always_has_a_live_key(world: World, walk: Walk) -> None:
    """Both keys are new at the end, each is written once, and none is regenerated while it is in use."""
    names, begin, secondary, switch, primary, end = walkthrough.blocks("rotation.md", "walk")
    assert names.strip() == f"account={ACCOUNT} group={GROUP}"
    before = {key: live(world.running, key) for key in KEYS}
    walk(begin)
    in_vault = stored(world, "primary")
    assert "updated" in walk(secondary)
    assert in_vault == live(world.running, "primary")
    walk(switch)
    in_vault = stored(world, "secondary")
    assert in_vault == live(world.running, "secondary") != before["secondary"]
    assert "updated" in walk(primary)
    assert in_vault == live(world.running, "secondary")
    walk(end)
    assert stored(world, "primary") == live(world.running, "primary") != before["primary"]
    assert [len(world.versions(VAULT, f"{ACCOUNT}-{key}-key")) for key in KEYS] == [2, 2]


def test_a_manually_written_key_is_managed_again(world: World, walk: Walk) -> None:
    """The guide's part for a time without keysync ends with a managed secret."""
    names, by_hand, restored = walkthrough.blocks("rotation.md", "by hand")
    assert names.strip() == f"account={ACCOUNT} group={GROUP} vault={VAULT}"
    world.running.do(lambda azure: azure.state.regenerate(ACCOUNT, "Secondary"))
    walk(by_hand)
    assert stored(world, "secondary") == live(world.running, "secondary")
    assert world.sync().outcomes()[f"{VAULT}/{ACCOUNT}-secondary-key"] == "unchanged"
    assert "adopted" in walk(restored)
    assert len(world.versions(VAULT, f"{ACCOUNT}-secondary-key")) == 2
    world.running.do(lambda azure: azure.state.regenerate(ACCOUNT, "Secondary"))
    assert world.sync().outcomes()[f"{VAULT}/{ACCOUNT}-secondary-key"] == "updated"


def test_one_command_replaces_a_leaked_key(world: World, walk: Walk) -> None:
    """The guide's emergency command."""
    (line,) = (
        block
        for block in walkthrough.shell((walkthrough.ROOT / "docs" / "rotation.md").read_text(encoding="utf-8"))
        if "&& keysync sync" in block
    )
    before = live(world.running, "primary")
    walk(line)
    assert stored(world, "primary") == live(world.running, "primary") != before
