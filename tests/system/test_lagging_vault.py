"""Vaults with a wrong clock, with delayed reads and writes, and with changes that they accept but do not store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from keysync.emulator import Emulator, Fault
from tests.support.other_writers import add_version, before, marks, secret
from tests.support.runs import key
from tests.system.conftest import World

MakeWorld = Callable[..., World]

LIVE = {"primary": key("p"), "secondary": key("s")}
ALPHA = {"name": "alpha", **LIVE}
PRIMARY = {"name": "alpha", "secrets": {"secondary": None}}
NAME = "main/alpha-primary-key"
LONG_AGO = 1_700_000_000


def values(world: World) -> list[str]:
    """The values of the primary key's secret, one for each version."""
    return [version.value for version in world.versions("main", "alpha-primary-key")]


def stored(world: World, *faults: Fault) -> None:
    """Adds faults to the embedded Azure."""
    for fault in faults:
        world.running.do(lambda azure, fault=fault: azure.faults.add(fault))


@pytest.mark.parametrize("offset", [-300, 0, 300])
def test_another_writers_version_after_a_create_is_not_overwritten(make_quick_world: MakeWorld, offset: int) -> None:
    """Its version is newer by the vault's clock, whatever this machine's clock says."""
    world = make_quick_world(ALPHA, vaults=({"name": "main", "clock_offset": offset},))
    world.configure([PRIMARY])

    def write_concurrently(azure: Emulator, target: str) -> None:
        add_version(azure, target, "their newer key", marks("alpha"))

    world.running.do(lambda azure: before(azure, ("getSecret", NAME), write_concurrently, which=2))
    assert world.sync().outcomes() == {NAME: "refused"}
    assert values(world) == ["their newer key"]


@pytest.mark.parametrize("offset", [-200_000, 200_000])
def test_changes_a_day_are_counted_by_the_vaults_clock(make_quick_world: MakeWorld, offset: int) -> None:
    """Two versions of this minute count as changes of today, and old ones do not, although the clock is days off."""
    vault = {"name": "main", "clock_offset": offset, "secrets": [secret("alpha", value="old", tags=marks("alpha"))]}
    world = make_quick_world(ALPHA, vaults=(vault,))
    world.configure([PRIMARY], limits={"changes_per_day": 1})
    assert world.sync().outcomes() == {NAME: "refused"}
    aged = world.versions("main", "alpha-primary-key")[0]
    aged.created -= 86_401
    assert world.sync().outcomes() == {NAME: "updated"}


@pytest.mark.parametrize("existed", [False, True])
def test_reads_from_before_a_write_make_one_version(make_quick_world: MakeWorld, existed: bool) -> None:
    """Twelve stale reads over several processes: no second version, first `unknown`, later in sync."""
    old = secret("alpha", value="old", tags=marks("alpha"), created=LONG_AGO)
    world = make_quick_world(ALPHA, vaults=({"name": "main", "secrets": [old] if existed else []},))
    world.configure([PRIMARY])
    stored(world, Fault(operation="setSecret", kind="stale", reads=12, times=1))
    first = world.sync().outcomes()[NAME]
    assert first == ("updated" if existed else "created")
    results = [world.sync().outcomes()[NAME] for _ in range(10)]
    assert set(results) == {"unknown", "unchanged"}
    assert results[-1] == "unchanged"
    assert values(world) == (["old"] if existed else []) + [LIVE["primary"]]


@pytest.mark.parametrize("kind", ["reset", "hang"])
def test_a_write_that_takes_effect_after_its_reply_was_lost_makes_one_version(
    make_quick_world: MakeWorld, kind: str
) -> None:
    """The run that sent it ends with `unknown` and does not repeat it; the next run finds it."""
    world = make_quick_world(ALPHA)
    world.configure([PRIMARY], timeouts={"request": "500ms"})
    stored(
        world, Fault.model_validate({"operation": "setSecret", "kind": kind, "after": True, "delay": 3600, "times": 1})
    )
    ran = world.sync()
    assert (ran.code, ran.outcomes()) == (1, {NAME: "unknown"})
    assert world.running.do(lambda azure: azure.counts["setSecret"]) == 1
    world.running.do(lambda azure: add_version(azure, NAME, LIVE["primary"], marks("alpha")))  # the delayed effect
    assert world.sync().outcomes() in ({NAME: "unchanged"}, {NAME: "updated"})
    assert values(world) == [LIVE["primary"]]


@pytest.mark.parametrize("enabled", [True, False], ids=["content-type", "enable"])
def test_a_change_that_the_vault_ignores_is_no_update(make_quick_world: MakeWorld, enabled: bool) -> None:
    """It is skipped with a warning that names the field, and makes no version."""
    stored_secret: dict[str, Any] = secret("alpha", value=LIVE["primary"], tags=marks("alpha"), enabled=enabled)
    world = make_quick_world(ALPHA, vaults=({"name": "main", "secrets": [stored_secret]},))
    url = world.running.azure.endpoints.vaults["main"]
    vaults = {"main": {"url": url, "verify_challenge_resource": False, "content_type": "text/x-key"}}
    world.configure([PRIMARY], vaults=vaults, disabled="enable")
    stored(world, Fault(operation="updateSecret", kind="ignored"))
    ran = world.sync()
    assert (ran.code, ran.outcomes()) == (0, {NAME: "skipped"})
    (line,) = [line for line in ran.log if line["event"] == "secret.skipped"]
    assert line["level"] == "warning"
    assert ("content type" if enabled else "enabled") in line["reason"]
    assert values(world) == [LIVE["primary"]]


def test_a_secret_that_cannot_be_tagged_is_not_adopted(make_quick_world: MakeWorld) -> None:
    """Without its tags the secret is not managed, so the adoption is refused."""
    world = make_quick_world(ALPHA, vaults=({"name": "main", "secrets": [secret("alpha", value=LIVE["primary"])]},))
    world.configure([PRIMARY], adopt=True)
    stored(world, Fault(operation="updateSecret", kind="ignored"))
    assert world.sync().outcomes() == {NAME: "refused"}


def test_a_checksum_has_128_bits(make_quick_world: MakeWorld) -> None:
    """`--accept` takes 32 hexadecimal digits."""
    world = make_quick_world(ALPHA)
    world.configure([PRIMARY])
    checksum = world.run("plan", "--output", "json").report["checksum"]
    assert len(checksum) == 32
    assert int(checksum, 16) >= 0
