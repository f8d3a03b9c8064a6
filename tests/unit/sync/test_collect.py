"""Collect: a failure of each account does not affect the others."""

from __future__ import annotations

import asyncio

import pytest

from keysync.failures import CallFailed, FailureRecord
from keysync.secret.reveal import reveal
from keysync.sources.azure_batch import KEY_NAMES
from keysync.sync.collect import Collected
from keysync.sync.items import WorkItem
from keysync.sync.model import Item
from keysync.sync.ownership import own_tags
from tests.support.runs import GROUP, World, key, ref


async def test_a_failed_source_fails_all_its_items():
    """If the keys cannot be read, every item has the record of that failure."""
    world, record = World("alpha"), FailureRecord(kind="dns", summary="s")
    world.sources["alpha"].failure = CallFailed(record)
    (collected,) = await world.collect()
    assert [change.error for change in collected.failed] == [record, record]
    assert collected.observed == ()
    assert collected.values == {}


async def test_a_failed_secret_fails_alone():
    """A failed read does not affect the account's other secret."""
    world = World("alpha")
    world.vault.failures[ref("alpha").secret] = RuntimeError("hostile")
    (collected,) = await world.collect()
    assert [change.ref for change in collected.failed] == [ref("alpha")]
    assert [observed.item.ref for observed in collected.observed] == [ref("alpha", "secondary")]


async def test_a_refused_key_is_reported():
    """A key that must not be written does not stop the other."""
    world = World("alpha")
    del world.sources["alpha"].values["primary"]
    world.sources["alpha"].refused["primary"] = "no base64"
    (collected,) = await world.collect()
    assert [(change.ref, change.kind, change.reason) for change in collected.failed] == [
        (ref("alpha"), "refused", "no base64")
    ]
    assert [observed.item.ref for observed in collected.observed] == [ref("alpha", "secondary")]
    assert list(collected.values) == [ref("alpha", "secondary")]


async def test_accounts_that_hang_do_not_delay_others():
    """However many hang, the others get their turn before any deadline."""
    hung = [f"hung{number}" for number in range(9)]
    world = World(*hung, "good")
    for name in hung:
        world.sources[name].hang()
    responded: asyncio.Future[Collected] = asyncio.get_running_loop().create_future()
    collector = world.collector(concurrency=1, account_seconds=30)
    collection = asyncio.create_task(
        collector.collect_all(world.work_items(), 0.005, lambda _item, account: responded.set_result(account))
    )
    good = await asyncio.wait_for(responded, 5)
    assert (good.account, len(good.observed)) == (f"{GROUP}/good", 2)
    assert not collection.done()
    collection.cancel()
    await asyncio.gather(collection, return_exceptions=True)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_fault_is_raised_after_all_are_collected():
    """An error of one account's callback loses no other account."""
    world, seen = World("alpha", "beta", "gamma"), list[str]()

    def collected(_item: WorkItem, account: Collected) -> None:
        seen.append(account.account)
        if len(seen) == 1:
            raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await world.collector(concurrency=1).collect_all(world.work_items(), 5, collected)
    assert len(seen) == 3


async def test_a_timeout_names_its_setting():
    """An account that does not respond in time fails with a timeout that names the setting."""
    world = World("alpha")
    world.sources["alpha"].hang()
    collected = await world.collector(account_seconds=0.01).collect(world.work_items()[0])
    errors = [change.error for change in collected.failed if change.error]
    assert [error.kind for error in errors] == ["timeout", "timeout"]
    assert all("timeouts.account" in error.summary for error in errors)


async def test_only_a_secret_without_its_key_has_a_value():
    """Even if its metadata must be written. A run does not keep the values of thousands of in-sync accounts."""
    world = World("alpha")
    right, wrong = ref("alpha"), ref("alpha", "secondary")
    world.vault.put(right.secret, key("alpha-1"), {"managed-by": "terraform"})
    world.vault.put(wrong.secret, key("alpha-1"), own_tags(Item(wrong)))
    (collected,) = await world.collect()
    assert {each: reveal(value) for each, value in collected.values.items()} == {wrong: key("alpha-2")}
    world.vault.put(wrong.secret, key("alpha-2"), own_tags(Item(wrong)))
    (collected,) = await world.collect()
    assert collected.values == {}


async def test_an_absent_secret_has_a_value():
    """So has a disabled secret."""
    world = World("alpha")
    world.vault.put(ref("alpha").secret, key("alpha-1"), enabled=False)
    (collected,) = await world.collect()
    assert set(collected.values) == {ref("alpha", name) for name in KEY_NAMES}
