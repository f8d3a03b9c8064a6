"""A whole run, from both sides to the report."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

import pytest

from keysync.config.operation import Limits
from keysync.failures import CallFailed, FailureRecord
from keysync.sync.model import Item
from keysync.sync.ownership import own_tags
from tests.support.memory import MemorySource
from tests.support.runs import World, key, outcomes, ref


async def test_a_run_brings_everything_in_sync():
    """The first run creates all secrets, the second has nothing to do, and the third follows a new key."""
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


async def test_the_observer_is_called_once_per_item():
    """The observer is called for the start, each account, each item and the report."""
    world = World("alpha", "beta")
    report = await world.run()
    assert world.log[0] == "started 2"
    assert sorted(world.watcher.results, key=lambda result: result.ref) == list(report.results)
    assert world.watcher.reports == [report]


async def test_a_run_without_accounts_succeeds():
    """Without accounts the report is empty, and nothing has failed."""
    report = await World().run()
    assert (report.results, report.failed, report.stopped) == ((), False, None)


async def test_a_hung_account_delays_no_other():
    """An account that hangs fails at its deadline. The others are written before that."""
    world = World("hung", "good")
    world.sources["hung"].hang()
    report = await world.run(account_seconds=0.1, collect_seconds=0.01, concurrency=1)
    assert outcomes(report.results) == {
        "good-primary-key": "created",
        "good-secondary-key": "created",
        "hung-primary-key": "failed",
        "hung-secondary-key": "failed",
    }
    assert world.log.index("write good-primary-key") < world.log.index("collected hung")
    assert {result.error.kind for result in report.results if result.error} == {"timeout"}


async def test_a_late_account_is_written_in_the_same_run():
    """An account that responds after the plan is written in a follow-up run."""
    world = World("late", "good")
    gate = world.sources["late"].gate = asyncio.Event()
    world.vault.on_write = gate.set
    report = await world.run(collect_seconds=0.01)
    assert {result.outcome for result in report.results} == {"created"}
    assert world.log.index("write good-primary-key") < world.log.index("write late-primary-key")


async def test_a_failed_account_has_an_item_for_each_key():
    """The report has the record of each failure. The others are written."""
    world = World("bad", "good")
    record = FailureRecord(kind="cloud_error", summary="HTTP 403", http_status=403)
    world.sources["bad"].failure = CallFailed(record)
    report = await world.run()
    assert [result.error for result in report.results if result.outcome == "failed"] == [record, record]
    assert report.failed


async def test_a_limit_stops_the_run_before_any_write():
    """Beyond a limit nothing is written. The report has the numbers and the checksum to accept."""
    world = World("alpha", "beta")
    report = await world.run(limits={"main": Limits(creates=3)})
    assert {result.outcome for result in report.results} == {"skipped"}
    assert "4 secrets" in (report.stopped or "")
    assert report.checksum in (report.stopped or "")
    assert world.vault.history_of == {}
    accepted = await world.run(limits={"main": Limits(creates=3)}, accept=report.checksum)
    assert accepted.stopped is None
    assert len(world.vault.history_of) == 4


async def test_another_checksum_than_the_accepted_one_stops():
    """If the plan has changed, `--accept` writes nothing, even within the limits, and has the new checksum."""
    world = World("alpha")
    report = await world.run(accept="0123456789abcdef0123456789abcdef")
    assert "0123456789abcdef0123456789abcdef" in (report.stopped or "")
    assert report.checksum in (report.stopped or "")
    assert world.vault.history_of == {}
    assert {result.outcome for result in report.results} == {"skipped"}


async def test_a_dry_run_with_another_checksum_stops():
    """It shows the plan, and that the checksum belongs to another one."""
    report = await World("alpha").run(accept="0123456789abcdef0123456789abcdef", dry_run=True)
    assert "does not match the current plan" in (report.stopped or "")
    assert {result.outcome for result in report.results} == {"create"}


async def test_a_limit_broken_late_refuses_the_late_account():
    """If a late account breaks a limit after others were written, only the late account is refused."""
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


async def test_a_limit_broken_late_can_be_accepted():
    """The checksum of a late breach covers the unwritten changes, so `--accept` takes it."""
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
    """A dry run has the outcomes of a plan, whatever the limits."""
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
    """`--accept` takes the checksum that `plan` shows."""
    world = World("alpha")
    assert (await world.run(dry_run=True)).checksum == (await world.run(limits={"main": Limits(creates=0)})).checksum


async def test_read_only_accounts_are_reported():
    """A read-only account has the outcomes of a plan, and is not written."""
    world = World("alpha")
    world.items["alpha"] = {"read_only": True}
    report = await world.run(limits={"main": Limits(creates=0)})
    assert {result.outcome for result in report.results} == {"create"}
    assert world.vault.history_of == {}


ALL = {"good-primary-key", "good-secondary-key", "hung-primary-key", "hung-secondary-key"}


async def test_an_interrupted_collection_reports_each_item():
    """Accounts that did not respond have failed, the others are skipped, and nothing is written."""
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


async def test_an_interrupted_write_reports_each_item():
    """An account that was late when the writes were interrupted is in the report."""
    world = World("hung", "good")
    world.sources["hung"].hang()
    world.vault.on_write = world.stop.set
    report = await world.run(collect_seconds=0.01)
    assert report.interrupted
    assert set(outcomes(report.results)) == ALL
    assert len(report.results) == 4


async def test_an_interrupted_wait_for_late_accounts_reports_each_item():
    """An account that was still late when the follow-up run was interrupted is in the report, once."""
    world = World("hung", "good")
    world.sources["hung"].hang()
    world.vault.on_write = lambda: asyncio.get_running_loop().call_later(0.02, world.stop.set)
    report = await world.run(collect_seconds=0.01)
    assert sorted(result.ref.secret for result in report.results) == sorted(ALL)
    assert outcomes(report.results)["good-primary-key"] == "created"


@pytest.mark.parametrize("hang", ["hung", "good"])
async def test_a_run_leaves_no_task_behind(hang: str):
    """After a run no task is left."""
    world = World("hung", "good")
    world.sources[hang].hang()
    await world.run(account_seconds=0.02)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_account_that_cannot_be_planned_fails_alone():
    """A bug that one account triggers is its failure. The others are written."""

    class Broken(Mapping[str, str]):
        def __getitem__(self, name: str) -> str:
            raise KeyError(name)

        def __iter__(self) -> Iterator[str]:
            raise RuntimeError("a bug")

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


async def test_an_observer_that_fails_fails_the_run_at_its_end():
    """A bug in an observer must not stop other accounts: they are written before the run raises it."""
    world = World("alpha", "beta")

    def fail(name: str) -> None:
        if name == "alpha":
            raise KeyError(name)

    world.watcher.on_collected = fail
    with pytest.raises(KeyError):
        await world.run()
    assert {result.ref.secret for result in world.watcher.results} >= {"beta-primary-key", "beta-secondary-key"}
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_stopped_run_reports_in_sync_items_too():
    """Only unwritten changes are skipped. In-sync items are unchanged."""
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
