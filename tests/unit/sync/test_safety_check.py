"""The safety check: which batches may be written, and that `--accept` of a shown checksum writes exactly that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keysync.sources.azure_batch import KEY_NAMES
from keysync.sync.limits import SafetyCheck, checksum
from keysync.sync.model import Change, ChangeKind, Outcome, Plan, Report, Result
from keysync.sync.ownership import own_tags
from keysync.sync.results import planned
from tests.support.memory import MemoryDirectory
from tests.support.observations import item
from tests.support.runs import GROUP, Limits, World, key, outcomes, ref

PRIMARY, SECONDARY = ref("alpha").secret, ref("alpha", "secondary").secret


def plan(*accounts: str, kind: ChangeKind = "create", needs_accept: str | None = None, read_only: bool = False) -> Plan:
    return Plan(
        tuple(Change(ref(each), kind, before="v1", needs_accept=needs_accept, read_only=read_only) for each in accounts)
    )


def joined(*plans: Plan) -> Plan:
    return Plan(tuple(sorted((change for each in plans for change in each.changes), key=lambda change: change.ref)))


def safety_check(creates: int = 2, *, accept: str | None = None, dry_run: bool = False) -> SafetyCheck:
    return SafetyCheck({"main": Limits(creates=creates)}, accept=accept, dry_run=dry_run)


def outcome_of(check: SafetyCheck, batch: Plan) -> Outcome | None:
    blocked = check.check(batch)
    return blocked.outcome if blocked else None


def test_batches_are_checked_together() -> None:
    """Two batches within the limit may break it together. Then the second is refused, with the sum."""
    check = safety_check()
    assert outcome_of(check, plan("a", "b")) is None
    blocked = check.check(plan("c"))
    assert blocked is not None
    assert blocked.outcome == "refused"
    assert "3 secrets" in blocked.reason
    assert check.stopped is None


def test_batches_within_the_limits_may_be_written() -> None:
    """Slow accounts within the limits are written like the others, and the checksum covers all batches."""
    check = safety_check()
    assert [outcome_of(check, plan("b")), outcome_of(check, plan("a"))] == [None, None]
    assert check.stopped is None
    assert check.checksum == checksum(plan("a", "b"))


def test_in_sync_secrets_of_other_batches_count() -> None:
    """The percentage is of all managed secrets, of every batch."""
    in_sync = tuple(Result(ref(f"in-sync{index}"), "unchanged") for index in range(18))
    updates = tuple(Change(ref(name), "update", before="v1", managed=True) for name in ("a", "b"))
    first, second = Plan((), in_sync[8:]), Plan(updates, in_sync[:8])

    def outcome(*batches: Plan) -> list[Outcome | None]:
        check = SafetyCheck({"main": Limits(update_percent=10)}, accept=None, dry_run=False)
        return [outcome_of(check, batch) for batch in batches]

    assert outcome(first, second) == [None, None]
    assert outcome(second, first) == ["skipped", "skipped"]
    assert outcome(Plan(updates, in_sync)) == [None]


def test_a_breach_in_the_first_batch_stops_all() -> None:
    """If the first batch breaks a limit, nothing is written, and the checksum covers late accounts too."""
    check = safety_check()
    assert outcome_of(check, plan("a", "b", "c")) == "skipped"
    assert outcome_of(check, plan("d")) == "skipped"
    assert check.checksum == checksum(plan("a", "b", "c", "d"))
    assert "3 secrets" in (check.stopped or "")
    assert f"keysync sync --accept {check.checksum}" in (check.stopped or "")


def test_after_a_late_breach_all_later_batches_are_refused() -> None:
    """Once a late batch is refused, all later ones are. The checksum covers what is left."""
    check = safety_check()
    outcomes_of_batches = [
        outcome_of(check, plan("a")),
        outcome_of(check, plan("b", "c")),
        outcome_of(check, plan("d")),
    ]
    assert outcomes_of_batches == [None, "refused", "refused"]
    assert check.checksum == checksum(plan("b", "c", "d"))


def test_a_late_breach_suggests_a_command() -> None:
    """The reason of each late item has the checksum of everything left."""
    check = safety_check()
    check.check(plan("a", "b"))
    blocked = check.check(plan("c", "d"))
    assert blocked is not None
    result = check.explained(Result(ref("c"), blocked.outcome, reason=blocked.reason))
    assert result.outcome == "refused"
    assert f"keysync sync --accept {checksum(plan('c', 'd'))}" in (result.reason or "")


def test_a_dry_run_is_never_stopped() -> None:
    """The whole plan is shown whatever the limits, with the checksum of all of it."""
    check = safety_check(0, dry_run=True)
    assert outcome_of(check, joined(plan("a"), plan("b", kind="update", needs_accept="too often"))) is None
    assert check.stopped is None
    assert check.checksum == checksum(joined(plan("a"), plan("b", kind="update", needs_accept="too often")))


def test_the_accepted_plan_may_exceed_the_limits() -> None:
    """The checksum of exactly this plan allows it, and changes that need `--accept`."""
    accepted_plan = joined(plan("a", "b", "c"), plan("d", kind="update", needs_accept="too often"))
    check = safety_check(0, accept=checksum(accepted_plan))
    assert outcome_of(check, accepted_plan) is None
    assert check.stopped is None


def test_another_plan_than_the_accepted_one_is_refused() -> None:
    """A plan with another checksum is not written, even within the limits. The message has both."""
    check = safety_check(9, accept=checksum(plan("a")))
    assert outcome_of(check, plan("a", "b")) == "skipped"
    assert checksum(plan("a")) in (check.stopped or "")
    assert checksum(plan("a", "b")) in (check.stopped or "")


@pytest.mark.parametrize("kind", ["update", "delete", "disable"])
def test_a_change_that_needs_accept_suggests_a_command(kind: ChangeKind) -> None:
    """A change that needs `--accept` is not written, and its reason has the checksum of all such changes."""
    waiting = plan("b", kind=kind, needs_accept="not written")
    check = safety_check()
    assert outcome_of(check, joined(plan("a"), waiting)) is None
    assert check.checksum == checksum(waiting)
    result = check.explained(planned(waiting.changes[0]))
    assert result.outcome == ("refused" if kind == "update" else "skipped")
    assert f"not written: keysync sync --accept {checksum(waiting)}" in (result.reason or "")


def test_other_results_keep_their_reasons() -> None:
    """Results of written changes, and all of an accepted plan, keep their reasons."""
    done = Result(ref("a"), "created", "v2")
    check = safety_check()
    check.check(joined(plan("a"), plan("b", needs_accept="x")))
    assert check.explained(done) == done
    accepted = safety_check(accept=checksum(plan("b", needs_accept="x")))
    accepted.check(plan("b", needs_accept="x"))
    made = Result(ref("b"), "created", "v2")
    assert accepted.explained(made) == made


def test_changes_of_read_only_accounts_are_in_the_checksum() -> None:
    """The next run plans them again, so the checksum covers them."""
    shown, waiting = plan("a", read_only=True), plan("b", kind="update", needs_accept="too often")
    check = safety_check()
    assert outcome_of(check, joined(shown, waiting)) is None
    again = safety_check(accept=check.checksum)
    assert outcome_of(again, joined(shown, waiting)) is None


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
        # With orphans there are no late accounts: a search that is slower than the first batch has other tests.
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
    """A run in which the accounts of `late` respond only after the first batch was written, or its wait was over."""
    gates = {name: asyncio.Event() for name in late}
    for name, event in gates.items():
        world.sources[name].safety_check = event
    waiting = asyncio.get_running_loop().call_later(0.01, _set_all, gates.values())
    try:
        return await world.run(collect_seconds=0.003, **every)
    finally:
        waiting.cancel()
        for name in late:
            world.sources[name].safety_check = None


def _set_all(events: Iterable[asyncio.Event]) -> None:
    for event in events:
        event.set()


async def test_the_checksum_depends_on_the_kind_of_change() -> None:
    """A plan that differs only in check kind of change has another checksum."""
    shown = plan("a", kind="disable")
    assert checksum(Plan(tuple(replace(change, kind="delete") for change in shown.changes))) != checksum(shown)
