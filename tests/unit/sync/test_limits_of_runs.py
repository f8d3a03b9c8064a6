"""The gate: what may be written round by round, and that `--accept` of what was told does just that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keysync.sources.interface import KEY_NAMES
from keysync.sync.limits import SafetyCheck, checksum
from keysync.sync.model import Change, ChangeKind, Outcome, Plan, Report, Result
from keysync.sync.ownership import own_tags
from keysync.sync.results import planned
from tests.support.looks import item
from tests.support.memory import MemoryDirectory
from tests.support.runs import GROUP, Limits, World, key, outcomes, ref

PRIMARY, SECONDARY = ref("alpha").secret, ref("alpha", "secondary").secret


def plan(*accounts: str, kind: ChangeKind = "create", needs_accept: str | None = None, read_only: bool = False) -> Plan:
    return Plan(
        tuple(Change(ref(each), kind, before="v1", needs_accept=needs_accept, read_only=read_only) for each in accounts)
    )


def joined(*plans: Plan) -> Plan:
    return Plan(tuple(sorted((one for each in plans for one in each.changes), key=lambda change: change.ref)))


def gate(creates: int = 2, *, accept: str | None = None, dry_run: bool = False) -> SafetyCheck:
    return SafetyCheck({"main": Limits(creates=creates)}, accept=accept, dry_run=dry_run)


def judged(one: SafetyCheck, found: Plan) -> Outcome | None:
    blocked = one.check(found)
    return blocked.outcome if blocked else None


def test_rounds_are_judged_together() -> None:
    """Two rounds that keep the limit one by one break it together; the second is refused, with the sum."""
    one = gate()
    assert judged(one, plan("a", "b")) is None
    blocked = one.check(plan("c"))
    assert blocked is not None
    assert blocked.outcome == "refused"
    assert "3 secrets" in blocked.reason
    assert one.stopped is None


def test_rounds_within_the_limits_are_let_through() -> None:
    """Slow accounts that break nothing are written like the others, and the checksum is of all of them."""
    one = gate()
    assert [judged(one, plan("b")), judged(one, plan("a"))] == [None, None]
    assert one.stopped is None
    assert one.checksum == checksum(plan("a", "b"))


def test_what_was_settled_in_an_earlier_round_counts() -> None:
    """The share that may be updated is one of all that is managed, in whichever round it was judged."""
    in_sync = tuple(Result(ref(f"settled{index}"), "unchanged") for index in range(18))
    updates = tuple(Change(ref(name), "update", before="v1", managed=True) for name in ("a", "b"))
    first, second = Plan((), in_sync[8:]), Plan(updates, in_sync[:8])

    def outcome(*rounds: Plan) -> list[Outcome | None]:
        one = SafetyCheck({"main": Limits(update_percent=10)}, accept=None, dry_run=False)
        return [judged(one, part) for part in rounds]

    assert outcome(first, second) == [None, None]
    assert outcome(second, first) == ["skipped", "skipped"]
    assert outcome(Plan(updates, in_sync)) == [None]


def test_a_breach_of_the_first_round_stops_all() -> None:
    """Nothing is written once the first round went too far, and the checksum covers the late accounts too."""
    one = gate()
    assert judged(one, plan("a", "b", "c")) == "skipped"
    assert judged(one, plan("d")) == "skipped"
    assert one.checksum == checksum(plan("a", "b", "c", "d"))
    assert "3 secrets" in (one.stopped or "")
    assert f"keysync sync --accept {one.checksum}" in (one.stopped or "")


def test_after_a_late_breach_nothing_more_is_let_through() -> None:
    """Once a late round was refused, no later one slips in, and what is left names itself."""
    one = gate()
    told = [judged(one, plan("a")), judged(one, plan("b", "c")), judged(one, plan("d"))]
    assert told == [None, "refused", "refused"]
    assert one.checksum == checksum(plan("b", "c", "d"))


def test_a_late_breach_is_told_with_its_command() -> None:
    """Each late item names the checksum of all that is left."""
    one = gate()
    one.check(plan("a", "b"))
    blocked = one.check(plan("c", "d"))
    assert blocked is not None
    result = one.explained(Result(ref("c"), blocked.outcome, reason=blocked.reason))
    assert result.outcome == "refused"
    assert f"keysync sync --accept {checksum(plan('c', 'd'))}" in (result.reason or "")


def test_a_dry_run_is_never_stopped() -> None:
    """A plan is shown whole, whatever the limits, with the checksum of all of it."""
    one = gate(0, dry_run=True)
    assert judged(one, joined(plan("a"), plan("b", kind="update", needs_accept="too often"))) is None
    assert one.stopped is None
    assert one.checksum == checksum(joined(plan("a"), plan("b", kind="update", needs_accept="too often")))


def test_the_accepted_plan_is_let_through_beyond_the_limits() -> None:
    """The checksum of just this plan opens the gate, also for what is held."""
    found = joined(plan("a", "b", "c"), plan("d", kind="update", needs_accept="too often"))
    one = gate(0, accept=checksum(found))
    assert judged(one, found) is None
    assert one.stopped is None


def test_another_plan_than_the_accepted_one_is_refused() -> None:
    """Within the limits or not, a plan of another checksum is not written, and both checksums are told."""
    one = gate(9, accept=checksum(plan("a")))
    assert judged(one, plan("a", "b")) == "skipped"
    assert checksum(plan("a")) in (one.stopped or "")
    assert checksum(plan("a", "b")) in (one.stopped or "")


@pytest.mark.parametrize("kind", ["update", "delete", "disable"])
def test_what_is_held_is_told_with_the_command_that_makes_it(kind: ChangeKind) -> None:
    """A held change is not written beside the others, and names the checksum of the held ones alone."""
    held = plan("b", kind=kind, needs_accept="not written")
    one = gate()
    assert judged(one, joined(plan("a"), held)) is None
    assert one.checksum == checksum(held)
    result = one.explained(planned(held.changes[0]))
    assert result.outcome == ("refused" if kind == "update" else "skipped")
    assert f"not written: keysync sync --accept {checksum(held)}" in (result.reason or "")


def test_what_waits_for_nobody_is_told_as_it_is() -> None:
    """Results of what was let through, and everything of an accepted pass, are left alone."""
    done = Result(ref("a"), "created", "v2")
    one = gate()
    one.check(joined(plan("a"), plan("b", needs_accept="x")))
    assert one.explained(done) == done
    accepted = gate(accept=checksum(plan("b", needs_accept="x")))
    accepted.check(plan("b", needs_accept="x"))
    made = Result(ref("b"), "created", "v2")
    assert accepted.explained(made) == made


def test_what_read_only_accounts_would_need_is_part_of_what_is_left() -> None:
    """The next run finds it to do again, so the checksum that a held change is told with covers it."""
    shown, held = plan("a", read_only=True), plan("b", kind="update", needs_accept="too often")
    one = gate()
    assert judged(one, joined(shown, held)) is None
    again = gate(accept=one.checksum)
    assert judged(again, joined(shown, held)) is None


async def test_a_secret_that_changes_too_often_waits_and_is_written_when_accepted() -> None:
    """At the limit of a day a new key is refused with its command; that command writes it, and the next run is quiet."""
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


async def test_a_world_that_changed_refuses_what_was_accepted() -> None:
    """Once the held secret has another version, the old checksum writes nothing."""
    world = World("alpha")
    world.items["alpha"] = {"changes_per_day": 1}
    await world.run()
    world.sources["alpha"].values["primary"] = key("second")
    held = await world.run()
    world.vault.put(PRIMARY, key("third"), own_tags(item()))
    report = await world.run(accept=held.checksum)
    assert held.checksum in (report.stopped or "")
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
    one = item(name, account, owner="mine")
    secret, live = one.ref.secret, world.sources[account].values[name]
    match state:
        case "in sync":
            world.vault.put(secret, live, own_tags(one))
        case "stale":
            world.vault.put(secret, key("gone"), own_tags(one))
        case "many versions":
            for _ in range(451):
                world.vault.put(secret, key("gone"), own_tags(one), created=world.now)
        case "by hand":
            world.vault.put(secret, key("gone"))
        case "disabled":
            world.vault.put(secret, key("gone"), own_tags(one), enabled=False)
        case "deleted":
            world.vault.put(secret, key("gone"), own_tags(one))
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
def test_accepting_what_was_told_leaves_nothing_waiting(
    states: dict[tuple[str, Any], str],
    configured: dict[str, dict[str, bool]],
    late: set[str],
    limits: Limits,
    orphans: int,
    mode: Literal["disable", "delete"],
) -> None:
    """In an unchanged world the checksum that a stop, a late or a held change named does all of it, and no run asks again."""

    async def run() -> None:
        world = World(*ACCOUNTS)
        for (account, name), state in states.items():
            put(world, account, name, state)
        for account, each in configured.items():
            world.items[account] = {**each, "owner": "mine", "changes_per_day": 100}
        for index in range(orphans):
            one = item("primary", f"left{index}", owner="mine")
            world.vault.put(one.ref.secret, key("gone"), own_tags(one))
        directory = MemoryDirectory(f"{GROUP}/left0")
        every = {"limits": {"main": limits}, "orphans": world.orphans(directory, mode=mode)}
        # A search that is not done when the first round is judged is told as such, and is another matter.
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
    """A run in which the accounts of `late` answer only once the first round was written, or its wait was over."""
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


async def test_a_change_that_was_not_shown_is_not_made_under_its_name() -> None:
    """A plan that differs in one kind alone has another checksum."""
    shown = plan("a", kind="disable")
    assert checksum(Plan(tuple(replace(one, kind="delete") for one in shown.changes))) != checksum(shown)
