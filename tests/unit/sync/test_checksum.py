"""A plan beyond a limit is stopped, with the numbers. A checksum names one plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keysync.config.operation import Limits
from keysync.sync.limits import breaches, checksum, count
from keysync.sync.model import Change, ChangeKind, Item, Plan
from keysync.sync.ownership import own_tags
from tests.support.runs import World, key, ref


def changes(
    kind: ChangeKind, count: int, *, managed: bool = False, vault: str = "main", read_only: bool = False
) -> list[Change]:
    return [
        Change(ref(f"{kind}{index}", vault=vault), kind, before="v1", managed=managed, read_only=read_only)
        for index in range(count)
    ]


@pytest.mark.parametrize(("creates", "broken"), [(3, 0), (4, 1)])
def test_creates_are_counted(creates: int, broken: int):
    """As many secrets as the limit may be created. One more stops the run, with both numbers."""
    found = breaches(count(Plan(tuple(changes("create", creates)))), {"main": Limits(creates=3)})
    assert len(found) == broken
    for breach in found:
        assert "4 secrets" in breach
        assert "limits.creates is 3" in breach
        assert "vault main" in breach


@pytest.mark.parametrize(
    ("updates", "unchanged", "percent", "broken"),
    [(5, 5, 50, 0), (6, 4, 50, 1), (10, 0, 100, 0), (9, 0, 0, 0), (1, 9, 0, 1), (1, 9, 10, 0), (0, 10, 0, 0)],
)
def test_updates_are_a_share_of_the_managed_secrets(updates: int, unchanged: int, percent: int, broken: int):
    """A larger share than the limit stops the run, if there are at least ten managed secrets."""
    plan = Plan((*changes("update", updates, managed=True), *changes("unchanged", unchanged, managed=True)))
    found = breaches(count(plan), {"main": Limits(update_percent=percent)})
    assert len(found) == broken
    for breach in found:
        assert f"{updates} of the {updates + unchanged}" in breach
        assert f"limits.update_percent is {percent}" in breach


def test_each_vault_has_its_own_limits():
    """A secret created in one vault does not count in another."""
    plan = Plan((*changes("create", 3), *changes("create", 3, vault="other")))
    found = breaches(count(plan), {"main": Limits(creates=3), "other": Limits(creates=2)})
    assert [text.split(":")[0] for text in found] == ["vault other"]


def test_read_only_items_do_not_count():
    """A change that is never written breaks no limit."""
    assert breaches(count(Plan(tuple(changes("create", 9, read_only=True)))), {"main": Limits(creates=0)}) == []


async def test_a_checksum_depends_on_versions_but_not_on_reasons():
    """Another reason does not change the checksum. Another version does."""
    world = World("alpha", "beta")
    world.vault.put(ref("alpha").secret, key("old"), own_tags(Item(ref("alpha"))))
    plan = await world.plan()
    before = checksum(plan.changes)
    assert checksum(replace(change, reason="other") for change in plan.changes) == before
    world.vault.put(ref("alpha").secret, key("old"), own_tags(Item(ref("alpha"))))
    assert checksum((await world.plan()).changes) != before


async def test_a_checksum_does_not_depend_on_values():
    """Two worlds that differ only in their keys have the same checksum."""
    sums = set()
    for text in ("one", "two"):
        world = World("alpha")
        world.sources["alpha"].values = {"primary": key(text), "secondary": key(text + "2")}
        world.vault.put(ref("alpha").secret, key(text + "old"), own_tags(Item(ref("alpha"))))
        sums.add(checksum((await world.plan()).changes))
    assert len(sums) == 1
