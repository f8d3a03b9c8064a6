"""Orphans: runs without a search, and excluded accounts."""

from __future__ import annotations

from typing import Any

from keysync.sources.azure_batch import KEY_NAMES
from keysync.sync.orphans import MissingCounters, OrphanSearch, Presence
from tests.support.runs import GROUP, World, key


class NoAccountExists:
    """No account exists."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def presence(self, account: str) -> Presence:
        self.asked.append(account)
        return "gone"


def search(world: World, existence: NoAccountExists, **more: Any) -> OrphanSearch:
    return OrphanSearch(world.vaults, existence, world.translator, "delete", "here", {}, KEY_NAMES, **more)


def world_with_orphans(*names: str) -> World:
    world = World()
    for name in names:
        tags = {
            "managed-by": "keysync",
            "keysync-source": f"{GROUP}/{name}",
            "keysync-key": "primary",
            "keysync-owner": "here",
        }
        world.vault.put(f"{name}-primary-key", key(name), tags)
    return world


async def test_a_skipped_search_starts_every_streak_over() -> None:
    """Without a search there is no proof, and the warning says why."""
    world, existence, streaks = world_with_orphans("alpha"), NoAccountExists(), MissingCounters()
    for _ in range(2):
        await search(world, existence, streaks=streaks).run(5)
    assert streaks.of(f"{GROUP}/alpha") == 2
    existence.asked.clear()
    found = await search(world, existence, streaks=streaks, skip_reason="not every account could be listed").run(5)
    assert found.changes == ()
    assert found.warnings == ("orphans: not every account could be listed: nothing is removed in this run",)
    assert existence.asked == []
    assert streaks.of(f"{GROUP}/alpha") == 0


async def test_an_excluded_account_has_no_orphans() -> None:
    """Accounts are compared without case. If there is a reason, a warning says that the secrets are not kept in sync."""
    world, existence = world_with_orphans("alpha", "beta", "gamma"), NoAccountExists()
    excluded = {f"{GROUP}/ALPHA".lower(): "its state is Deleting", f"{GROUP}/gamma".lower(): None}
    found = await search(world, existence, excluded=excluded).run(5)
    assert [change.ref.secret for change in found.changes] == ["beta-primary-key"]
    assert found.warnings == (
        f"vault main: the secrets of {GROUP}/alpha are not kept in sync, since the account is not served: its state is Deleting",
    )


async def test_many_accounts_that_are_not_served_are_one_warning() -> None:
    """It has three names, and the number of the others."""
    names = [f"acct{number}" for number in range(5)]
    world = world_with_orphans(*names)
    excluded = {f"{GROUP}/{name}".lower(): "it has no keys" for name in names}
    (warning,) = (await search(world, NoAccountExists(), excluded=excluded).run(5)).warnings
    named = ", ".join(f"{GROUP}/{name}" for name in names[:3])
    assert f"the secrets of {named} and 2 more are not kept in sync" in warning
