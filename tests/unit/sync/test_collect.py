"""Each account's failure is its own."""

from __future__ import annotations

import asyncio

from keysync.failures import CallFailed, FailureRecord
from keysync.secret.reveal import reveal
from keysync.sources.interface import KEY_NAMES
from keysync.sync.model import Item, KeyRefused, Observed, Unobserved
from keysync.sync.ownership import own_tags
from tests.support.runs import World, key, ref


async def test_a_source_that_fails_fails_each_of_its_items():
    """Where the keys did not come, every item has the record of that failure."""
    world, record = World("alpha"), FailureRecord(kind="dns", summary="s")
    world.sources["alpha"].failure = CallFailed(record)
    (collected,) = await world.collect()
    assert [one.error for one in collected.observed if isinstance(one, Unobserved)] == [record, record]
    assert collected.values == {}


async def test_a_secret_that_fails_fails_alone():
    """A read that fails leaves the account's other secret as it is."""
    world = World("alpha")
    world.vault.failures[ref("alpha").secret] = RuntimeError("hostile")
    (collected,) = await world.collect()
    assert [type(one) for one in collected.observed] == [Unobserved, Observed]


async def test_a_refused_key_is_told_as_such():
    """One key that must not be written does not stop the other."""
    world = World("alpha")
    del world.sources["alpha"].values["primary"]
    world.sources["alpha"].refused["primary"] = "no base64"
    (collected,) = await world.collect()
    assert [type(one) for one in collected.observed] == [KeyRefused, Observed]
    assert list(collected.values) == [ref("alpha", "secondary")]


async def test_accounts_that_hang_do_not_hold_up_others():
    """However many hang, the others get their turn before any of the deadlines."""
    world = World("a1", "a2", "a3", "good")
    for name in ("a1", "a2", "a3"):
        world.sources[name].hang()
    collector = world.collector(concurrency=1, patience_seconds=0.005, account_seconds=30)
    tasks = [asyncio.create_task(collector.collect(scope)) for scope in world.work_items()]
    good = await asyncio.wait_for(tasks[-1], 5)
    assert [type(one) for one in good.observed] == [Observed, Observed]
    assert not any(task.done() for task in tasks[:-1])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_deadline_that_passed_is_named():
    """An account that does not answer in time fails with a timeout that names the setting."""
    world = World("alpha")
    world.sources["alpha"].hang()
    collected = await world.collector(account_seconds=0.01).collect(world.work_items()[0])
    assert [one.error.kind for one in collected.observed if isinstance(one, Unobserved)] == ["timeout", "timeout"]
    assert all("timeouts.account" in one.error.summary for one in collected.observed if isinstance(one, Unobserved))


async def test_only_a_secret_that_does_not_hold_its_key_is_given_a_value():
    """Whatever else of it is to be written: the values of thousands of accounts in sync are not kept for a run."""
    world = World("alpha")
    right, wrong = ref("alpha"), ref("alpha", "secondary")
    world.vault.put(right.secret, key("alpha-1"), {"managed-by": "terraform"})
    world.vault.put(wrong.secret, key("alpha-1"), own_tags(Item(wrong)))
    (collected,) = await world.collect()
    assert {one: reveal(value) for one, value in collected.values.items()} == {wrong: key("alpha-2")}
    world.vault.put(wrong.secret, key("alpha-2"), own_tags(Item(wrong)))
    (collected,) = await world.collect()
    assert collected.values == {}


async def test_a_name_that_is_free_is_given_a_value():
    """And one that nobody can read yet."""
    world = World("alpha")
    world.vault.put(ref("alpha").secret, key("alpha-1"), enabled=False)
    (collected,) = await world.collect()
    assert set(collected.values) == {ref("alpha", name) for name in KEY_NAMES}
