"""A change is sent only while the look that it rests on is fresh, whatever it had to wait for."""

from __future__ import annotations

import pytest

from keysync.calls import READ_BARRIER
from keysync.failures import FailureRecord, StaleRead
from keysync.sync.model import Item
from keysync.sync.ownership import own_tags
from tests.support.runs import World, key, outcomes, ref

NAME = ref("alpha").secret
RECORD = FailureRecord(kind="throttled", summary="HTTP 429")


def stale(world: World) -> None:
    world.vault.put(NAME, key("old"), own_tags(Item(ref("alpha"))))


def pass_time(world: World) -> None:
    world.monotonic += 11


async def test_a_write_that_came_too_late_takes_another_look():
    """The secret is looked at again, and written if it is still as it was."""
    world = World("alpha")
    stale(world)
    world.vault.failing_once[NAME] = StaleRead(RECORD), lambda: pass_time(world)
    assert outcomes(await world.apply())[NAME] == "updated"
    assert world.log.count(f"write {NAME}") == 2
    assert world.vault.text(NAME) == world.sources["alpha"].values["primary"]


@pytest.mark.parametrize("theirs", [{}, {"managed-by": "terraform"}])
async def test_what_somebody_did_while_it_waited_is_seen(theirs: dict[str, str]):
    """Their retag, which makes no version, and their value are left as they are."""
    world = World("alpha")
    stale(world)

    def meanwhile() -> None:
        world.vault.retag(NAME, theirs)

    world.vault.failing_once[NAME] = StaleRead(RECORD), meanwhile
    assert outcomes(await world.apply())[NAME] == "refused"
    assert world.vault.text(NAME) == key("old")


async def test_it_is_not_tried_for_ever():
    """Three looks, and the item has failed with what kept it waiting."""
    world = World("alpha")
    stale(world)
    world.vault.write_failures[NAME] = StaleRead(RECORD)
    (result, *_) = await world.apply()
    assert (result.outcome, result.error) == ("failed", RECORD)
    assert world.log.count(f"write {NAME}") == 3


async def test_a_write_knows_how_long_its_look_is_good_for():
    """Ten seconds from the look, and a single attempt where the name was free."""
    world = World("alpha")
    stale(world)
    seen = {}

    def note() -> None:
        freshness = READ_BARRIER.get()
        assert freshness is not None
        seen[freshness.once] = freshness

    world.vault.on_write = note
    await world.apply()
    assert set(seen) == {True, False}
    for freshness in seen.values():
        world.monotonic = 9.9
        assert freshness.allows(1)
        assert freshness.allows(2) is not freshness.once
        world.monotonic = 10.1
        assert not freshness.allows(1)
        world.monotonic = 0.0
