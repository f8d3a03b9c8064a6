"""What changes between the comparison and the write."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keysync.secret.redact import Redactor
from keysync.secret.value import SecretValue
from keysync.sync.model import Item
from keysync.sync.ownership import own_tags
from tests.support.runs import World, key, ref

NAME = ref("alpha").secret


async def late(world: World, seconds: float, between: object = None) -> dict[str, str]:
    """Plans, lets `seconds` go by, calls `between`, and applies what was planned."""
    batch = await world.batch()
    plan = batch.plan()
    world.monotonic += seconds
    if callable(between):
        between()
    results = await world.applier().apply(plan, batch.inputs())
    return {result.ref.secret: result.outcome for result in results}


@pytest.mark.parametrize("seconds", [0, 60])
async def test_a_secret_that_somebody_made_meanwhile_is_not_overwritten(seconds: float):
    """A name that was free when compared and is taken when written is refused, however short the time between."""
    world = World("alpha")
    told = await late(world, seconds, lambda: world.vault.put(NAME, key("theirs"), {"managed-by": "terraform"}))
    assert told[NAME] == "refused"
    assert world.vault.text(NAME) == key("theirs")


async def test_an_old_observation_is_made_anew():
    """Ten seconds after the look, a secret that is no longer ours or has another version is refused, and left alone."""
    for tags in ({"managed-by": "terraform"}, own_tags(Item(ref("alpha")))):
        world = World("alpha")
        world.vault.put(NAME, key("old"), own_tags(Item(ref("alpha"))))
        told = await late(world, 10.1, lambda world=world, tags=tags: world.vault.put(NAME, key("theirs"), tags))
        assert told[NAME] == "refused"
        assert world.vault.text(NAME) == key("theirs")


async def test_tags_that_were_patched_meanwhile_are_carried_forward():
    """A look that is made anew brings the tags of that moment, though no version was made."""
    world = World("alpha")
    ours = own_tags(Item(ref("alpha")))
    world.vault.put(NAME, key("old"), ours)
    told = await late(world, 11, lambda: world.vault.retag(NAME, {**ours, "cost": "7"}))
    assert told[NAME] == "updated"
    assert world.vault.latest(NAME).tags == {**ours, "cost": "7"}


async def test_a_secret_that_was_unmarked_meanwhile_is_not_overwritten():
    """Whoever takes our tags off has taken the secret back, though its version is the same."""
    world = World("alpha")
    world.vault.put(NAME, key("old"), own_tags(Item(ref("alpha"))))
    told = await late(world, 11, lambda: world.vault.retag(NAME, {}))
    assert told[NAME] == "refused"
    assert world.vault.text(NAME) == key("old")


async def test_a_fresh_observation_is_not_made_twice():
    """Within ten seconds an update rests on the look that it was planned on: it costs no further request."""
    world = World("alpha")
    for name in ("primary", "secondary"):
        world.vault.put(ref("alpha", name).secret, key("old"), own_tags(Item(ref("alpha", name))))
    reads = world.vault.reads
    assert set((await late(world, 9.9)).values()) == {"updated"}
    assert world.vault.reads == reads + 2


async def test_what_somebody_else_brought_in_sync_is_unchanged():
    """Another keysync that was faster makes no failure of this one, and no second version."""
    world = World("alpha")
    ours = own_tags(Item(ref("alpha")))
    world.vault.put(NAME, key("old"), ours)
    live = world.sources["alpha"].values["primary"]
    told = await late(world, 11, lambda: world.vault.put(NAME, live, ours))
    assert told[NAME] == "unchanged"
    assert len(world.vault.history_of[NAME]) == 2


def test_a_value_cut_off_or_escaped_is_masked():
    """A message that was cut within a key, or writes it with escapes, shows none of it."""
    key = "Zm9vYmFyYmF6cXV4+/8Zm9vYmFyYmF6cXV4" * 2 + "Zm9vYmFyYmF6cXV4=="
    redactor = Redactor()
    kept = redactor.remember(SecretValue(key))
    assert key[:12] not in redactor.redact(f"value {key[:40]}... is wrong")
    escaped = key.replace("+", "\\u002B").replace("/", "\\/").replace("=", "\\u003D")
    assert "YmFyYmF6" not in redactor.redact(f"body {escaped} is wrong")
    assert kept


async def test_a_version_that_does_not_stay_what_it_was_is_refused():
    """Only tags were to be set; the same version holds another value now, and the one to write is not there any more."""
    world = World("alpha")
    world.items["alpha"] = {"content_type": "text/plain"}
    version = world.vault.put(NAME, key("alpha-1"), own_tags(Item(ref("alpha"))))
    changed = replace(version, value=SecretValue(key("theirs")))
    told = await late(world, 11, lambda: world.vault.history_of.update({NAME: [changed]}))
    assert told[NAME] == "refused"
    assert world.vault.text(NAME) == key("theirs")


async def test_tags_are_set_without_the_value():
    """A secret that holds its key is not written, so the value is not there either."""
    world = World("alpha")
    world.items["alpha"] = {"content_type": "text/plain"}
    world.vault.put(NAME, key("alpha-1"), own_tags(Item(ref("alpha"))))
    assert (await late(world, 11))[NAME] == "updated"
    assert (world.vault.latest(NAME).content_type, len(world.vault.history_of[NAME])) == ("text/plain", 1)
