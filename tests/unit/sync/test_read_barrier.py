"""Secrets that change meanwhile the comparison and the write."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keysync.secret.redact import Redactor
from keysync.secret.value import SecretValue
from keysync.sync.model import Item
from keysync.sync.ownership import own_tags
from tests.support.runs import World, key, outcomes, ref

NAME = ref("alpha").secret


async def apply_after(world: World, seconds: float, meanwhile: object = None) -> dict[str, str]:
    """Plans, lets `seconds` pass, calls `meanwhile`, and applies the plan."""
    plan, inputs = (await world.planner()).take()
    world.monotonic += seconds
    if callable(meanwhile):
        meanwhile()
    return outcomes(await world.write(plan, inputs))


@pytest.mark.parametrize("seconds", [0, 60])
async def test_a_secret_created_meanwhile_is_not_overwritten(seconds: float):
    """A secret created after the comparison is refused, however short the time."""
    world = World("alpha")
    outcome_of = await apply_after(
        world, seconds, lambda: world.vault.put(NAME, key("theirs"), {"managed-by": "terraform"})
    )
    assert outcome_of[NAME] == "refused"
    assert world.vault.text(NAME) == key("theirs")


async def test_a_secret_is_read_again_after_ten_seconds():
    """Ten seconds after the read, a secret that is no longer managed or has another version is refused."""
    for tags in ({"managed-by": "terraform"}, own_tags(Item(ref("alpha")))):
        world = World("alpha")
        world.vault.put(NAME, key("old"), own_tags(Item(ref("alpha"))))
        outcome_of = await apply_after(
            world, 10.1, lambda world=world, tags=tags: world.vault.put(NAME, key("theirs"), tags)
        )
        assert outcome_of[NAME] == "refused"
        assert world.vault.text(NAME) == key("theirs")


async def test_tags_patched_meanwhile_are_kept():
    """A second read has the current tags, although there is no new version."""
    world = World("alpha")
    ours = own_tags(Item(ref("alpha")))
    world.vault.put(NAME, key("old"), ours)
    outcome_of = await apply_after(world, 11, lambda: world.vault.retag(NAME, {**ours, "cost": "7"}))
    assert outcome_of[NAME] == "updated"
    assert world.vault.latest(NAME).tags == {**ours, "cost": "7"}


async def test_a_secret_untagged_meanwhile_is_not_overwritten():
    """Without keysync's tags the secret is unmanaged, although its version is the same."""
    world = World("alpha")
    world.vault.put(NAME, key("old"), own_tags(Item(ref("alpha"))))
    outcome_of = await apply_after(world, 11, lambda: world.vault.retag(NAME, {}))
    assert outcome_of[NAME] == "refused"
    assert world.vault.text(NAME) == key("old")


async def test_a_fresh_secret_is_not_read_again():
    """Within ten seconds an update is based on the read of the plan, and needs no further request."""
    world = World("alpha")
    for name in ("primary", "secondary"):
        world.vault.put(ref("alpha", name).secret, key("old"), own_tags(Item(ref("alpha", name))))
    reads = world.vault.reads
    assert set((await apply_after(world, 9.9)).values()) == {"updated"}
    assert world.vault.reads == reads + 2


async def test_a_secret_brought_in_sync_meanwhile_is_unchanged():
    """If another keysync was faster, there is no failure and no second version."""
    world = World("alpha")
    ours = own_tags(Item(ref("alpha")))
    world.vault.put(NAME, key("old"), ours)
    live = world.sources["alpha"].values["primary"]
    outcome_of = await apply_after(world, 11, lambda: world.vault.put(NAME, live, ours))
    assert outcome_of[NAME] == "unchanged"
    assert len(world.vault.history_of[NAME]) == 2


def test_a_truncated_or_escaped_value_is_masked():
    """A message with a truncated or escaped key shows none of it."""
    key = "Zm9vYmFyYmF6cXV4+/8Zm9vYmFyYmF6cXV4" * 2 + "Zm9vYmFyYmF6cXV4=="
    redactor = Redactor()
    kept = redactor.remember(SecretValue(key))
    assert key[:12] not in redactor.redact(f"value {key[:40]}... is wrong")
    escaped = key.replace("+", "\\u002B").replace("/", "\\/").replace("=", "\\u003D")
    assert "YmFyYmF6" not in redactor.redact(f"body {escaped} is wrong")
    assert kept


async def test_a_version_with_another_value_is_refused():
    """Only tags were to be set. The same version now has another value, and there is no value to write."""
    world = World("alpha")
    world.items["alpha"] = {"content_type": "text/plain"}
    version = world.vault.put(NAME, key("alpha-1"), own_tags(Item(ref("alpha"))))
    changed = replace(version, value=SecretValue(key("theirs")))
    outcome_of = await apply_after(world, 11, lambda: world.vault.history_of.update({NAME: [changed]}))
    assert outcome_of[NAME] == "refused"
    assert world.vault.text(NAME) == key("theirs")


async def test_tags_are_set_without_the_value():
    """A secret that has its key needs no value."""
    world = World("alpha")
    world.items["alpha"] = {"content_type": "text/plain"}
    world.vault.put(NAME, key("alpha-1"), own_tags(Item(ref("alpha"))))
    assert (await apply_after(world, 11))[NAME] == "updated"
    assert (world.vault.latest(NAME).content_type, len(world.vault.history_of[NAME])) == ("text/plain", 1)
