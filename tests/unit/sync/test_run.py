"""A whole run, from what both sides show to the report."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from keysync.failures import CallFailed, FailureRecord
from keysync.sync.items import WorkItem
from keysync.sync.model import Item
from keysync.sync.ownership import own_tags
from keysync.sync.run import run_sync
from tests.support.memory import MemorySource
from tests.support.runs import Limits, World, key, outcomes, ref


async def test_a_run_brings_everything_into_step():
    """After a first pass all keys are there; the second finds nothing to do; a new key is followed."""
    world = World("alpha", "beta", vaults=("main", "spare"))
    report = await world.run()
    assert {result.outcome for result in report.results} == {"created"}
    assert (len(report.results), report.accounts) == (8, 2)
    assert not report.failed
    assert {result.outcome for result in (await world.run()).results} == {"unchanged"}
    world.sources["alpha"].values["primary"] = key("regenerated")
    report = await world.run()
    assert [result.ref.secret for result in report.results if result.outcome == "updated"] == ["alpha-primary-key"] * 2
    assert world.vaults["spare"].text("alpha-primary-key") == key("regenerated")


async def test_the_observer_is_told_of_each_item_once():
    """Start, accounts, one result an item, and the report reach who watches."""
    world = World("alpha", "beta")
    report = await world.run()
    assert world.log[0] == "started 2"
    assert sorted(world.watcher.results, key=lambda result: result.ref) == list(report.results)
    assert world.watcher.reports == [report]


async def test_nothing_to_serve_is_a_run_all_the_same():
    """Without accounts the report is empty and nothing failed."""
    report = await World().run()
    assert (report.results, report.failed, report.stopped) == ((), False, None)


async def test_a_hung_account_delays_no_other():
    """One that hangs is failed by its deadline; the others are written before that."""
    world = World("hung", "good")
    world.sources["hung"].hang()
    report = await world.run(account_seconds=0.1, patience_seconds=0.005, collect_seconds=0.02, concurrency=1)
    assert outcomes(report.results) == {
        "good-primary-key": "created",
        "good-secondary-key": "created",
        "hung-primary-key": "failed",
        "hung-secondary-key": "failed",
    }
    assert world.log.index("write good-primary-key") < world.log.index("collected hung")
    assert {result.error.kind for result in report.results if result.error} == {"timeout"}


async def test_an_account_that_is_late_is_written_in_the_same_run():
    """Who answers after the first writing gets a second."""
    world = World("late", "good")
    gate = world.sources["late"].gate = asyncio.Event()
    world.vault.on_write = gate.set
    report = await world.run(collect_seconds=0.01)
    assert {result.outcome for result in report.results} == {"created"}
    assert world.log.index("write good-primary-key") < world.log.index("write late-primary-key")


async def test_a_failed_account_has_an_item_for_each_key_it_should_have_served():
    """Failures stand in the report with their record; the others are done."""
    world = World("bad", "good")
    record = FailureRecord(kind="cloud_error", summary="HTTP 403", http_status=403)
    world.sources["bad"].failure = CallFailed(record)
    report = await world.run()
    assert [result.error for result in report.results if result.outcome == "failed"] == [record, record]
    assert report.failed


async def test_a_limit_stops_the_run_before_any_write():
    """Beyond a limit nothing is written, and the report carries the numbers and the checksum that accepts them."""
    world = World("alpha", "beta")
    report = await world.run(limits={"main": Limits(creates=3)})
    assert {result.outcome for result in report.results} == {"skipped"}
    assert "4 secrets" in (report.stopped or "")
    assert report.checksum in (report.stopped or "")
    assert world.vault.history_of == {}
    accepted = await world.run(limits={"main": Limits(creates=3)}, accept=report.checksum)
    assert accepted.stopped is None
    assert len(world.vault.history_of) == 4


async def test_another_plan_than_the_accepted_one_stops():
    """`--accept` of a plan that has changed since writes nothing, even within the limits, and names the new one."""
    world = World("alpha")
    report = await world.run(accept="0123456789abcdef0123456789abcdef")
    assert "0123456789abcdef0123456789abcdef" in (report.stopped or "")
    assert report.checksum in (report.stopped or "")
    assert world.vault.history_of == {}
    assert {result.outcome for result in report.results} == {"skipped"}


async def test_a_limit_that_is_broken_late_does_not_deny_what_was_written():
    """Where a late account breaks a limit after others were written, the stop does not claim that nothing was."""
    world = World("late", "good")
    gate = world.sources["late"].gate = asyncio.Event()
    world.vault.on_write = gate.set
    report = await world.run(collect_seconds=0.01, limits={"main": Limits(creates=2)})
    assert report.stopped is None
    assert outcomes(report.results) == {
        "good-primary-key": "created",
        "good-secondary-key": "created",
        "late-primary-key": "refused",
        "late-secondary-key": "refused",
    }
    assert sorted(world.vault.history_of) == ["good-primary-key", "good-secondary-key"]
    assert "4 secrets" in (report.results[-1].reason or "")


async def test_a_limit_that_is_broken_late_can_be_accepted():
    """The checksum that a late stop tells is that of what is left to write, so that `--accept` takes it."""
    world = World("late", "good")
    gate = world.sources["late"].gate = asyncio.Event()
    world.vault.on_write = gate.set
    report = await world.run(collect_seconds=0.01, limits={"main": Limits(creates=2)})
    shown = (await world.run(dry_run=True)).checksum
    assert report.checksum == shown
    assert f"--accept {shown}" in (report.results[-1].reason or "")
    accepted = await world.run(limits={"main": Limits(creates=0)}, accept=shown)
    assert outcomes(accepted.results)["late-primary-key"] == "created"


async def test_a_dry_run_writes_nothing():
    """A dry run tells what would be, in the words of a plan, whatever the limits."""
    world = World("alpha", "beta")
    world.vault.put(ref("beta").secret, key("old"), own_tags(Item(ref("beta"))))
    report = await world.run(dry_run=True, limits={"main": Limits(creates=0)})
    assert outcomes(report.results) == {
        "alpha-primary-key": "create",
        "alpha-secondary-key": "create",
        "beta-primary-key": "update",
        "beta-secondary-key": "create",
    }
    assert report.dry_run
    assert report.stopped is None
    assert report.has_changes
    assert not [line for line in world.log if line.startswith(("write", "tag"))]


async def test_a_dry_run_has_the_checksum_of_the_run():
    """What `plan` shows is what `--accept` takes."""
    world = World("alpha")
    assert (await world.run(dry_run=True)).checksum == (await world.run(limits={"main": Limits(creates=0)})).checksum


async def test_read_only_accounts_are_observed():
    """A read-only account is reported as a plan would, and not written."""
    world = World("alpha")
    world.items["alpha"] = {"read_only": True}
    report = await world.run(limits={"main": Limits(creates=0)})
    assert {result.outcome for result in report.results} == {"create"}
    assert world.vault.history_of == {}


ALL = {"good-primary-key", "good-secondary-key", "hung-primary-key", "hung-secondary-key"}


async def test_a_run_that_is_interrupted_while_it_collects_reports_each_item():
    """What had not answered is failed, what had is skipped, and nothing is written."""
    world = World("hung", "good")
    world.sources["hung"].hang()
    world.watcher.on_collected = lambda _account: world.stop.set()
    report = await world.run()
    assert report.interrupted
    assert set(outcomes(report.results)) == ALL
    assert len(report.results) == 4
    assert outcomes(report.results)["hung-primary-key"] == "failed"
    assert outcomes(report.results)["good-primary-key"] == "skipped"
    assert world.vault.history_of == {}


async def test_a_run_that_is_interrupted_while_it_writes_reports_each_item():
    """An account that was late when the first writing was interrupted is not missing from the report."""
    world = World("hung", "good")
    world.sources["hung"].hang()
    world.vault.on_write = world.stop.set
    report = await world.run(collect_seconds=0.01)
    assert report.interrupted
    assert set(outcomes(report.results)) == ALL
    assert len(report.results) == 4


async def test_a_run_that_is_interrupted_while_it_waits_for_the_late_reports_each_item():
    """An account that was waited for after the first writing is not missing, and stands there once."""
    world = World("hung", "good")
    world.sources["hung"].hang()
    world.vault.on_write = lambda: asyncio.get_running_loop().call_later(0.02, world.stop.set)
    report = await world.run(collect_seconds=0.01)
    assert sorted(result.ref.secret for result in report.results) == sorted(ALL)
    assert outcomes(report.results)["good-primary-key"] == "created"


@pytest.mark.parametrize("hang", ["hung", "good"])
async def test_a_run_leaves_no_task_behind(hang: str):
    """Once a run has ended, nothing of it runs on."""
    world = World("hung", "good")
    world.sources[hang].hang()
    await world.run(account_seconds=0.02)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_account_that_cannot_be_judged_fails_alone():
    """A fault of ours in one account is told as its failure; the others are written."""

    class Broken(Mapping[str, str]):
        def __getitem__(self, name: str) -> str:
            raise KeyError(name)

        def __iter__(self) -> Iterator[str]:
            raise RuntimeError("a fault")

        def __len__(self) -> int:
            return 1

    world = World("bad", "good")
    world.items["bad"] = {"tags": Broken()}
    report = await world.run()
    assert outcomes(report.results) == {
        "bad-primary-key": "failed",
        "bad-secondary-key": "failed",
        "good-primary-key": "created",
        "good-secondary-key": "created",
    }
    assert {result.error.kind for result in report.results if result.error} == {"internal"}


async def test_a_scope_is_asked_for_when_its_turn_comes():
    """Of thousands of accounts only those under way are there at once."""
    world = World(*(f"account{number}" for number in range(20)))

    class WorkItems(list[WorkItem]):
        asked = 0

        def __getitem__(self, at: Any) -> Any:
            self.asked += 1
            return super().__getitem__(at)

    scopes = WorkItems(world.work_items())
    for name in list(world.sources)[4:]:
        world.sources[name].hang()
    job = replace(world.job(concurrency=8, patience_seconds=60), work_items=scopes)
    running = asyncio.create_task(run_sync(job))
    for _ in range(100):  # turns of the loop, enough for all that does not hang
        await asyncio.sleep(0)
    assert scopes.asked == 12
    world.stop.set()
    assert len((await running).results) == 40


async def test_a_scope_that_cannot_be_made_ends_the_run_when_the_others_are_done():
    """A fault of ours by which nobody knows whose it is: nothing is told of it but the fault, and nobody waits."""
    world = World("alpha", "beta")

    class WorkItems(list[WorkItem]):
        def __getitem__(self, at: Any) -> Any:
            if at == 1:
                raise KeyError(at)
            return super().__getitem__(at)

    with pytest.raises(KeyError):
        await run_sync(replace(world.job(), work_items=WorkItems(world.work_items())))
    assert outcomes(world.watcher.results) == {"alpha-primary-key": "created", "alpha-secondary-key": "created"}
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_stopped_run_tells_of_what_is_in_sync_too():
    """Only what would have been written is skipped."""
    world = World("alpha")
    await world.run()
    world.sources["beta"] = MemorySource(key("beta-1"), key("beta-2"))
    world.items["beta"] = {}
    world.watcher.results.clear()
    report = await world.run(limits={"main": Limits(creates=1)})
    assert report.stopped
    expected = {
        "alpha-primary-key": "unchanged",
        "alpha-secondary-key": "unchanged",
        "beta-primary-key": "skipped",
        "beta-secondary-key": "skipped",
    }
    assert outcomes(report.results) == outcomes(world.watcher.results) == expected
    assert len(report.results) == len(world.watcher.results) == 4
