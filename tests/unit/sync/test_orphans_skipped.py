"""When orphans are not searched, and whose secrets are none."""

from __future__ import annotations

from typing import Any

from keysync.sync.orphans import MissingCounters, OrphanSearch, Presence
from tests.support.runs import GROUP, World, key


class EverythingIsGone:
    """A directory in which no account is there."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def presence(self, account: str) -> Presence:
        self.asked.append(account)
        return "gone"


def search(world: World, directory: EverythingIsGone, **more: Any) -> OrphanSearch:
    return OrphanSearch(world.vaults, directory, world.translator, "delete", "here", served={}, **more)


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


async def test_where_it_is_withheld_nothing_is_looked_at_and_every_streak_starts_over() -> None:
    """What was not looked at proves nothing, and the warning says why."""
    world, directory, streaks = world_with_orphans("alpha"), EverythingIsGone(), MissingCounters()
    for _ in range(2):
        await search(world, directory, streaks=streaks).run(5)
    assert streaks.of(f"{GROUP}/alpha") == 2
    directory.asked.clear()
    found = await search(world, directory, streaks=streaks, skip_reason="not every account could be listed").run(5)
    assert found.changes == ()
    assert found.warnings == ("orphans: not every account could be listed: nothing is removed in this run",)
    assert directory.asked == []
    assert streaks.of(f"{GROUP}/alpha") == 0


async def test_an_account_that_is_spared_has_no_orphans() -> None:
    """Compared without case; the other one's are found. Where there is a reason the search says that they are not kept in sync."""
    world, directory = world_with_orphans("alpha", "beta", "gamma"), EverythingIsGone()
    excluded = {f"{GROUP}/ALPHA".lower(): "its state is Deleting", f"{GROUP}/gamma".lower(): None}
    found = await search(world, directory, excluded=excluded).run(5)
    assert [change.ref.secret for change in found.changes] == ["beta-primary-key"]
    assert found.warnings == (
        f"vault main: the secrets of {GROUP}/alpha are not kept in sync, since the account is not served: its state is Deleting",
    )


async def test_many_accounts_that_are_not_served_are_one_warning() -> None:
    """With three names and the number of the others."""
    names = [f"acct{number}" for number in range(5)]
    world = world_with_orphans(*names)
    excluded = {f"{GROUP}/{name}".lower(): "it has no keys" for name in names}
    (warning,) = (await search(world, EverythingIsGone(), excluded=excluded).run(5)).warnings
    told = ", ".join(f"{GROUP}/{name}" for name in names[:3])
    assert f"the secrets of {told} and 2 more are not kept in sync" in warning
