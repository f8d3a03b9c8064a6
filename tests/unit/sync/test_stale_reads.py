"""A write is sent only while the read that it is based on is fresh."""

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


async def test_a_write_that_comes_too_late_reads_again():
    """The secret is read again, and written if it has not changed."""
    world = World("alpha")
    stale(world)
    world.vault.failing_once[NAME] = StaleRead(RECORD), lambda: pass_time(world)
    assert outcomes(await world.apply())[NAME] == "updated"
    assert world.log.count(f"write {NAME}") == 2
    assert world.vault.text(NAME) == world.sources["alpha"].values["primary"]


@pytest.mark.parametrize("tags", [{}, {"managed-by": "terraform"}])
async def test_a_change_during_the_wait_is_noticed(tags: dict[str, str]):
    """A change of tags by another writer, which makes no version, is kept."""
    world = World("alpha")
    stale(world)

    def meanwhile() -> None:
        world.vault.retag(NAME, tags)

    world.vault.failing_once[NAME] = StaleRead(RECORD), meanwhile
    assert outcomes(await world.apply())[NAME] == "refused"
    assert world.vault.text(NAME) == key("old")


async def test_the_number_of_attempts_is_limited():
    """After three more reads the item has failed, with the failure that delayed it."""
    world = World("alpha")
    stale(world)
    world.vault.write_failures[NAME] = StaleRead(RECORD)
    (result, *_) = await world.apply()
    assert (result.outcome, result.error) == ("failed", RECORD)
    assert world.log.count(f"write {NAME}") == 4


async def test_a_write_has_a_deadline():
    """Ten seconds from the read, and a single attempt if the secret was absent."""
    world = World("alpha")
    stale(world)
    barriers = {}

    def note() -> None:
        barrier = READ_BARRIER.get()
        assert barrier is not None
        barriers[barrier.once] = barrier

    world.vault.on_write = note
    await world.apply()
    assert set(barriers) == {True, False}
    for barrier in barriers.values():
        world.monotonic = 9.9
        assert barrier.allows(1)
        assert barrier.allows(2) is not barrier.once
        world.monotonic = 10.1
        assert not barrier.allows(1)
        world.monotonic = 0.0
