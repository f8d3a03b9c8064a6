"""Rotations in random worlds: no slot that a consumer may use is regenerated, none is twice, and each world converges."""

from __future__ import annotations

from datetime import timedelta

import pytest

from keysync.rotation.policy import Policy
from tests.support.fast_loop import run_fast
from tests.support.rotation_world import SLOTS, World, live
from tests.support.virtual_clock import seeded


def check_world(seed: int) -> None:
    """Six days of faults and kills with up to three processes on up to three vaults, then two quiet rotations."""
    random = seeded(seed)
    grace = timedelta(hours=random.choice([0.5, 2, 6]))
    policy = Policy(timedelta(days=1), grace, retire=random.random() < 0.5)
    world = World(random.randint(1, 3), grace)
    run_fast(live(world, policy, random, processes=random.randint(1, 3), rate=random.uniform(0, 0.6), days=6))
    assert world.violations == []
    assert world.switches >= 2
    for vault in world.vaults:
        assert [vault[slot].value for slot in SLOTS] == [world.key(slot) for slot in SLOTS]
        assert vault["active"].value == world.key(vault["active"].tags["keysync-active"])


@pytest.mark.parametrize("seed", range(10))
def test_no_interruption_costs_a_consumer_its_key(seed: int) -> None:
    check_world(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 110))
def test_no_interruption_costs_a_consumer_its_key_in_many_worlds(seed: int) -> None:
    check_world(seed)
