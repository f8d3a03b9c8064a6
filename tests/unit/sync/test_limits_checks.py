"""Limits stop what goes too far, with the numbers; a checksum names one plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keysync.sync.limits import accept_message, breaches, checksum, other_checksum, stop_message
from keysync.sync.model import Change, ChangeKind, Item, Plan
from keysync.sync.ownership import own_tags
from keysync.sync.plan import make_plan
from tests.support.runs import Limits, World, key, ref


def changes(
    kind: ChangeKind, count: int, *, managed: bool = False, vault: str = "main", read_only: bool = False
) -> list[Change]:
    return [
        Change(ref(f"{kind}{index}", vault=vault), kind, before="v1", managed=managed, read_only=read_only)
        for index in range(count)
    ]


@pytest.mark.parametrize(("count", "broken"), [(3, 0), (4, 1)])
def test_creates_are_counted(count: int, broken: int):
    """As many as the limit may be created, one more stops the run and both numbers are told."""
    found = breaches(Plan(tuple(changes("create", count))), {"main": Limits(creates=3)})
    assert len(found) == broken
    for breach in found:
        assert "4 secrets" in str(breach)
        assert "limits.creates is 3" in str(breach)
        assert "vault main" in str(breach)


@pytest.mark.parametrize(
    ("updates", "unchanged", "percent", "broken"),
    [(5, 5, 50, 0), (6, 4, 50, 1), (10, 0, 100, 0), (9, 0, 0, 0), (1, 9, 0, 1), (1, 9, 10, 0), (0, 10, 0, 0)],
)
def test_updates_are_a_share_of_what_is_managed(updates: int, unchanged: int, percent: int, broken: int):
    """A larger share than the limit stops the run, from ten managed secrets on."""
    plan = Plan((*changes("update", updates, managed=True), *changes("unchanged", unchanged, managed=True)))
    found = breaches(plan, {"main": Limits(update_percent=percent)})
    assert len(found) == broken
    for breach in found:
        assert f"{updates} of the {updates + unchanged}" in str(breach)
        assert f"limits.update_percent is {percent}" in str(breach)


def test_each_vault_has_its_own_limits():
    """What is created in one vault does not count in another."""
    plan = Plan((*changes("create", 3), *changes("create", 3, vault="other")))
    found = breaches(plan, {"main": Limits(creates=3), "other": Limits(creates=2)})
    assert [breach.vault for breach in found] == ["other"]


def test_read_only_items_count_nothing():
    """What is never written breaks no limit."""
    assert breaches(Plan(tuple(changes("create", 9, read_only=True))), {"main": Limits(creates=0)}) == ()


def test_a_stop_says_how_to_go_on():
    """The message holds the numbers and the command that accepts exactly this plan."""
    plan = Plan(tuple(changes("create", 2)))
    message = stop_message(breaches(plan, {"main": Limits(creates=1)}), f"keysync sync --accept {checksum(plan)}")
    assert "2 secrets" in message
    assert f"keysync sync --accept {checksum(plan)}" in message
    assert "--accept old" in other_checksum("old", "new", "keysync sync --accept new")
    assert "new" in other_checksum("old", "new", "keysync sync --accept new")


async def test_a_checksum_is_stable_under_order_and_follows_versions():
    """The same plan has the same checksum in whatever order it was seen; another version or kind has another."""
    world = World("alpha", "beta")
    world.vault.put(ref("alpha").secret, key("old"), own_tags(Item(ref("alpha"))))
    observed = [one for account in await world.collect() for one in account.observed]
    before = checksum(make_plan(observed, world.now))
    observed.reverse()
    assert checksum(make_plan(observed, world.now)) == before
    plan = make_plan(observed, world.now)
    assert checksum(Plan(tuple(replace(change, reason="other") for change in plan.changes))) == before
    world.vault.put(ref("alpha").secret, key("old"), own_tags(Item(ref("alpha"))))
    assert checksum(await world.plan()) != before


async def test_a_checksum_tells_nothing_of_values():
    """Two worlds that differ in their keys alone have one checksum."""
    sums = set()
    for text in ("one", "two"):
        world = World("alpha")
        world.sources["alpha"].values = {"primary": key(text), "secondary": key(text + "2")}
        world.vault.put(ref("alpha").secret, key(text + "old"), own_tags(Item(ref("alpha"))))
        sums.add(checksum(await world.plan()))
    assert len(sums) == 1


def test_accepting_a_held_orphan_says_how_many_changes_it_makes() -> None:
    """The change itself is one of them."""
    assert (
        accept_message("To disable it", {"disable": 3}, "X")
        == "To disable it (accepts all waiting changes: 3 disable): X"
    )
    assert accept_message("To disable it", {"disable": 1}, "X") == "To disable it: X"
