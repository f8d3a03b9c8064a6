"""The safety check: what a run and its follow-up runs may write, and that `--accept` of a shown checksum writes exactly that."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keysync.config.operation import Limits
from keysync.sources.azure_batch import KEY_NAMES
from keysync.sync.limits import Blocked, check, check_accepted, checksum, count
from keysync.sync.model import DONE, Change, ChangeKind, Plan, Report, Result
from keysync.sync.ownership import own_tags
from keysync.sync.report import ReportBuilder
from tests.support.memory import MemoryDirectory
from tests.support.observations import item
from tests.support.runs import GROUP, World, key, outcomes, ref

PRIMARY, SECONDARY = ref("alpha").secret, ref("alpha", "secondary").secret
LIMIT = {"main": Limits(creates=2)}


def plan(*accounts: str, kind: ChangeKind = "create", needs_accept: str | None = None, read_only: bool = False) -> Plan:
    return Plan(
        tuple(Change(ref(each), kind, before="v1", needs_accept=needs_accept, read_only=read_only) for each in accounts)
    )


def joined(*plans: Plan) -> Plan:
    return Plan(tuple(sorted((change for each in plans for change in each.changes), key=lambda change: change.ref)))


def report_of(plan: Plan, blocked: Blocked | None = None, *, accepted: bool = False) -> Report:
    """The report of a run that wrote all of `plan` that it may."""
    builder = ReportBuilder(World().job(accept="shown" if accepted else None), "run")
    builder.planned(plan, blocked)
    for change in plan.changes:
        writes = blocked is None and not change.read_only and (accepted or not change.needs_accept)
        result = Result(change.ref, DONE[change.kind], "v2") if writes else change.unwritten()
        builder.result(replace(result, outcome=blocked.outcome, reason=blocked.reason) if blocked else result)
    return builder.finish(blocked, ())


def test_a_run_and_its_follow_up_are_checked_together() -> None:
    """Two plans within the limit may break it together. Then the second is refused, with the sum."""
    assert check(plan("a", "b"), LIMIT, Counter()) is None
    blocked = check(plan("c"), LIMIT, count(plan("a", "b")))
    assert blocked is not None
    assert (blocked.late, blocked.outcome) == (True, "refused")
    assert "3 secrets" in blocked.reason
    assert report_of(plan("c"), blocked).stopped is None


def test_a_follow_up_within_the_limits_may_be_written() -> None:
    """Slow accounts within the limits are written like the others."""
    assert check(plan("b"), LIMIT, Counter()) is None
    assert check(plan("a"), LIMIT, count(plan("b"))) is None


def test_in_sync_secrets_of_the_whole_run_count() -> None:
    """The percentage is of all managed secrets, also those of the run before the follow-up run."""
    in_sync = [Change(ref(f"in-sync{index}"), "unchanged", managed=True) for index in range(18)]
    updates = tuple(Change(ref(name), "update", before="v1", managed=True) for name in ("a", "b"))
    first, second = Plan(tuple(in_sync[8:])), Plan((*updates, *in_sync[:8]))
    limits = {"main": Limits(update_percent=10)}
    assert check(second, limits, count(first)) is None
    assert check(Plan((*updates, *in_sync)), limits, Counter()) is None
    blocked = check(second, limits, Counter())
    assert blocked is not None
    assert blocked.outcome == "skipped"


def test_a_breach_before_any_write_stops_the_run() -> None:
    """The message has the numbers and the command. In-sync accounts of an earlier part of the run count as no write."""
    shown = plan("a", "b", "c")
    blocked = check(shown, LIMIT, count(Plan((Change(ref("in-sync"), "unchanged", managed=True),))))
    assert blocked is not None
    assert not blocked.late
    report = report_of(shown, blocked)
    assert report.checksum == checksum(shown.changes)
    assert "3 secrets" in (report.stopped or "")
    assert f"keysync sync --accept {report.checksum}" in (report.stopped or "")


async def test_a_stopped_run_collects_the_late_accounts() -> None:
    """Nothing is written. The checksum covers the late accounts too."""
    world = World("late", "good")
    gate = world.sources["late"].gate = asyncio.Event()
    world.watcher.on_collected = lambda _account: asyncio.get_running_loop().call_later(0.03, gate.set)
    report = await world.run(collect_seconds=0.01, limits={"main": Limits(creates=1)})
    assert {result.outcome for result in report.results} == {"skipped"}
    assert len(report.results) == 4
    assert "2 secrets" in (report.stopped or "")
    assert report.checksum == (await world.run(dry_run=True)).checksum


async def test_after_a_late_breach_all_later_accounts_are_refused() -> None:
    """Once late accounts are refused, all later ones are. The checksum covers what is left."""
    world = World("first", "second", "third")
    gates = {name: asyncio.Event() for name in ("second", "third")}
    for name, gate in gates.items():
        world.sources[name].gate = gate
    world.vault.on_write = gates["second"].set
    world.watcher.on_collected = lambda name: name == "second" and gates["third"].set()
    report = await world.run(collect_seconds=0.01, limits={"main": Limits(creates=3)})
    assert [result.outcome for result in report.results] == ["created"] * 2 + ["refused"] * 4
    assert report.stopped is None
    shown = (await world.run(dry_run=True)).checksum
    assert report.checksum == shown
    assert all(f"keysync sync --accept {shown}" in (result.reason or "") for result in report.results[2:])


def test_the_accepted_plan_may_exceed_the_limits() -> None:
    """The checksum of exactly this plan allows it, and changes that need `--accept`."""
    accepted_plan = joined(plan("a", "b", "c"), plan("d", kind="update", needs_accept="too often"))
    assert check_accepted(accepted_plan, checksum(accepted_plan.changes)) is None


def test_another_plan_than_the_accepted_one_is_refused() -> None:
    """A plan with another checksum is not written, even within the limits. The message has both."""
    shown, actual = checksum(plan("a").changes), checksum(plan("a", "b").changes)
    blocked = check_accepted(plan("a", "b"), shown)
    assert blocked is not None
    assert blocked.outcome == "skipped"
    stopped = report_of(plan("a", "b"), blocked, accepted=True).stopped or ""
    assert f"--accept {shown} does not match the current plan, {actual}" in stopped
    assert f"keysync sync --accept {actual}" in stopped


def test_a_plan_without_changes_accepts_nothing() -> None:
    """The message suggests no command."""
    blocked = check_accepted(Plan(()), "old")
    assert report_of(Plan(()), blocked, accepted=True).stopped == (
        "--accept old: the plan has no changes, so there is nothing to accept"
    )


@pytest.mark.parametrize("kind", ["update", "delete", "disable"])
def test_a_change_that_needs_accept_suggests_a_command(kind: ChangeKind) -> None:
    """A change that needs `--accept` is not written, and its reason has the checksum of all such changes."""
    waiting = plan("b", kind=kind, needs_accept="not written")
    report = report_of(joined(plan("a"), waiting))
    assert report.checksum == checksum(waiting.changes)
    result = report.results[1]
    assert result.outcome == ("refused" if kind == "update" else "skipped")
    assert f"not written: keysync sync --accept {checksum(waiting.changes)}" in (result.reason or "")


def test_a_command_says_how_many_changes_it_accepts() -> None:
    """The numbers include the change itself."""
    waiting = joined(plan("a", "b", kind="disable", needs_accept="To disable it"), plan("c", read_only=True))
    report = report_of(joined(waiting, plan("d", kind="update", needs_accept="too often")))
    command = f"keysync sync --accept {report.checksum}"
    assert report.results[0].reason == f"To disable it (accepts all waiting changes: 2 disable, 1 update): {command}"


def test_other_results_keep_their_reasons() -> None:
    """Results of written changes, and all of an accepted plan, keep their reasons."""
    both = joined(plan("a"), plan("b", needs_accept="x"))
    assert report_of(both).results[0] == Result(ref("a"), "created", "v2")
    assert report_of(both, accepted=True).results[1] == Result(ref("b"), "created", "v2")


def test_changes_of_read_only_accounts_are_in_the_checksum() -> None:
    """The next run plans them again, so the checksum covers them."""
    both = joined(plan("a", read_only=True), plan("b", kind="update", needs_accept="too often"))
    assert check_accepted(both, report_of(both).checksum) is None


async def test_a_secret_that_changes_too_often_is_written_when_accepted() -> None:
    """At the limit of a day a new key is refused with a command. The command writes it, and the next run has no changes."""
    world = World("alpha")
    world.items["alpha"] = {"changes_per_day": 2}
    await world.run()
    for text in ("second", "third"):
        world.sources["alpha"].values["primary"] = key(text)
        report = await world.run()
    assert outcomes(report.results) == {PRIMARY: "refused", SECONDARY: "unchanged"}
    assert f"keysync sync --accept {report.checksum}" in (report.results[0].reason or "")
    assert world.vault.text(PRIMARY) == key("second")
    accepted = await world.run(accept=report.checksum)
    assert outcomes(accepted.results) == {PRIMARY: "updated", SECONDARY: "unchanged"}
    assert world.vault.text(PRIMARY) == key("third")
    assert {result.outcome for result in (await world.run()).results} == {"unchanged"}


async def test_a_changed_world_refuses_the_accepted_checksum() -> None:
    """Once the secret has another version, the old checksum writes nothing."""
    world = World("alpha")
    world.items["alpha"] = {"changes_per_day": 1}
    await world.run()
    world.sources["alpha"].values["primary"] = key("second")
    waiting = await world.run()
    world.vault.put(PRIMARY, key("third"), own_tags(item()))
    report = await world.run(accept=waiting.checksum)
    assert waiting.checksum in (report.stopped or "")
    assert world.vault.text(PRIMARY) == key("third")


ACCOUNTS = ("alpha", "beta", "gamma")
STATES = st.sampled_from(["absent", "in sync", "stale", "many versions", "by hand", "disabled", "deleted"])
CONFIGURED = st.fixed_dictionaries({"read_only": st.booleans(), "enable": st.booleans(), "recover": st.booleans()})
LIMITS = st.builds(
    Limits,
    creates=st.integers(0, 6),
    update_percent=st.sampled_from([0, 100]),
    removal_percent=st.sampled_from([0, 10, 100]),
)


def put(world: World, account: str, name: Any, state: str) -> None:
    target = item(name, account, owner="mine")
    secret, live = target.ref.secret, world.sources[account].values[name]
    match state:
        case "in sync":
            world.vault.put(secret, live, own_tags(target))
        case "stale":
            world.vault.put(secret, key("gone"), own_tags(target))
        case "many versions":
            for _ in range(451):
                world.vault.put(secret, key("gone"), own_tags(target), created=world.now)
        case "by hand":
            world.vault.put(secret, key("gone"))
        case "disabled":
            world.vault.put(secret, key("gone"), own_tags(target), enabled=False)
        case "deleted":
            world.vault.put(secret, key("gone"), own_tags(target))
            world.vault.remove(secret)


def waits(report: Report) -> bool:
    return any(
        "--accept" in text for text in [report.stopped or "", *(result.reason or "" for result in report.results)]
    )


@given(
    st.fixed_dictionaries({(account, name): STATES for account in ACCOUNTS for name in KEY_NAMES}),
    st.fixed_dictionaries(dict.fromkeys(ACCOUNTS, CONFIGURED)),
    st.sets(st.sampled_from(ACCOUNTS)),
    LIMITS,
    st.integers(0, 3),
    st.sampled_from(["disable", "delete"]),
)
@settings(max_examples=60)
def test_the_shown_checksum_makes_all_changes(
    states: dict[tuple[str, Any], str],
    configured: dict[str, dict[str, bool]],
    late: set[str],
    limits: Limits,
    orphans: int,
    mode: Literal["disable", "delete"],
) -> None:
    """In an unchanged world, the checksum in a message makes all the changes, and the next run needs no `--accept`."""

    async def run() -> None:
        world = World(*ACCOUNTS)
        for (account, name), state in states.items():
            put(world, account, name, state)
        for account, each in configured.items():
            world.items[account] = {**each, "owner": "mine", "changes_per_day": 100}
        for index in range(orphans):
            target = item("primary", f"left{index}", owner="mine")
            world.vault.put(target.ref.secret, key("gone"), own_tags(target))
        directory = MemoryDirectory(f"{GROUP}/left0")
        every = {"limits": {"main": limits}, "orphans": world.orphans(directory, mode=mode)}
        # With orphans there are no late accounts: a search that is slower than the collection has other tests.
        report = await (world.run(**every) if orphans else _with_late_accounts(world, late, every))
        if waits(report):
            accepted = await world.run(accept=report.checksum, **every)
            assert accepted.stopped is None
            assert not {result.outcome for result in accepted.results} & {"failed", "unknown"}
        assert not waits(await world.run(**every))
        for (account, name), state in states.items():
            if not configured[account]["read_only"] and state in {"absent", "in sync", "stale", "many versions"}:
                assert world.vault.text(ref(account, name).secret) == world.sources[account].values[name]
        for index in range(orphans):
            left = world.vault.history_of.get(ref(f"left{index}").secret)
            assert left is None if mode == "delete" else left and not left[-1].enabled

    asyncio.run(run())


async def _with_late_accounts(world: World, late: set[str], every: dict[str, Any]) -> Report:
    """A run in which the accounts of `late` respond only after the others were written, or the wait was over."""
    gates = {name: asyncio.Event() for name in late}
    for name, event in gates.items():
        world.sources[name].gate = event
    waiting = asyncio.get_running_loop().call_later(0.01, _set_all, gates.values())
    try:
        return await world.run(collect_seconds=0.003, **every)
    finally:
        waiting.cancel()
        for name in late:
            world.sources[name].gate = None


def _set_all(events: Iterable[asyncio.Event]) -> None:
    for event in events:
        event.set()


async def test_the_checksum_depends_on_the_kind_of_change() -> None:
    """A plan that differs only in the kind of a change has another checksum."""
    assert checksum(plan("a", kind="delete").changes) != checksum(plan("a", kind="disable").changes)
