"""Apply: one result per item, whatever happens."""

from __future__ import annotations

from keysync.failures import CallFailed, FailureRecord
from keysync.targets.interface import WriteConflict, WriteUnknown
from tests.support.runs import World, outcomes, ref

RECORD = FailureRecord(kind="cloud_error", summary="HTTP 403: Forbidden", http_status=403)


async def test_one_failure_does_not_stop_the_rest():
    """Whatever kind of failure a write has, all others are made."""
    world = World("a", "b", "c", "d", "e")
    failing = {"a": CallFailed(RECORD), "b": WriteUnknown(RECORD), "c": WriteConflict(RECORD), "d": RuntimeError("x")}
    for account, error in failing.items():
        world.vault.write_failures[ref(account).secret] = error
    results = await world.apply(concurrency=2)
    outcome_of = outcomes(results)
    assert [outcome_of[ref(account).secret] for account in "abcde"] == [
        "failed",
        "unknown",
        "failed",
        "failed",
        "created",
    ]
    assert all(outcome_of[ref(account, "secondary").secret] == "created" for account in "abcde")
    assert results[0].error is RECORD
    assert results[0].reason == RECORD.summary


async def test_results_have_the_new_version():
    """Each written item names its new version."""
    world = World("a")
    results = await world.apply()
    assert [result.version for result in results] == [world.vault.latest(result.ref.secret).id for result in results]


async def test_writes_not_started_at_the_stop_are_skipped():
    """After a stop the write in progress finishes, and no other starts."""
    world = World("a", "b", "c")
    world.vault.on_write = world.stop.set
    results = await world.apply(concurrency=1)
    assert [result.outcome for result in results] == ["created", *["skipped"] * 5]
    assert len(world.log) == 1
    assert all("interrupted" in (result.reason or "") for result in results[1:])


async def test_a_stop_before_the_start_writes_nothing():
    """A plan applied after the stop does not change the vault."""
    world = World("a")
    world.stop.set()
    assert [result.outcome for result in await world.apply()] == ["skipped", "skipped"]
    assert world.log == []


async def test_a_cancelled_write_is_unknown():
    """A write that exceeds the grace period after a stop is neither a success nor a failure."""
    world = World("a", "b")
    world.vault.hanging.add(ref("a").secret)
    world.vault.on_write = world.stop.set
    results = await world.apply(concurrency=1, grace_seconds=0.02)
    assert [result.outcome for result in results] == ["unknown", "skipped", "skipped", "skipped"]


async def test_read_only_items_are_shown_and_not_written():
    """A read-only item has the outcome of a plan, and the vault does not change."""
    world = World("a", "b")
    world.items["a"] = {"read_only": True}
    assert outcomes(await world.apply()) == {
        "a-primary-key": "create",
        "a-secondary-key": "create",
        "b-primary-key": "created",
        "b-secondary-key": "created",
    }
    assert sorted(world.vault.history_of) == ["b-primary-key", "b-secondary-key"]
