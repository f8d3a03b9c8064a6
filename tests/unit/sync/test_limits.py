"""The limits in numbers: which changes count, and which do not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.config.operation import Limits
from keysync.sync.limits import breaches, checksum, count, max_removals
from keysync.sync.model import REMOVALS, WRITES, Change, ChangeKind, Plan
from tests.support.runs import ref

NOW = datetime(2026, 11, 24, 5, 22, tzinfo=UTC)
DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)


def changes(kind: ChangeKind, count: int) -> list[Change]:
    return [Change(ref(f"{kind}{index}"), kind, before="v1", managed=kind != "create") for index in range(count)]


def broken(*found: Change, **limits: int) -> list[str]:
    return breaches(count(Plan(found)), {"main": Limits(**limits)})


@pytest.mark.parametrize(
    ("managed", "percent", "most"),
    [(0, 10, 1), (1, 10, 1), (9, 10, 1), (19, 10, 1), (20, 10, 2), (100, 10, 10), (3, 100, 3), (100, 0, 0), (1, 0, 0), (5, 1, 1)],
)  # fmt: skip
def test_a_run_may_remove_one_secret_or_the_share(managed: int, percent: int, most: int) -> None:
    """A run may remove the share, rounded down, but at least one secret; none at 0 percent."""
    assert max_removals(managed, percent) == most


@pytest.mark.parametrize("kind", sorted(REMOVALS))
@pytest.mark.parametrize(("count", "percent", "stops"), [(1, 10, False), (2, 10, True), (2, 20, False), (1, 0, True)])
def test_removals_are_a_share_of_the_managed_secrets(kind: ChangeKind, count: int, percent: int, stops: bool) -> None:
    """At 10 percent of ten managed secrets, one may be removed. Two stop the run, with both numbers."""
    found = broken(*changes(kind, count), *changes("unchanged", 10 - count), removal_percent=percent)
    assert bool(found) == stops
    for text in found:
        assert f"{count} of the 10 secrets managed there would be disabled or deleted" in text
        assert f"limits.removal_percent is {percent}" in text


def test_in_sync_secrets_count_as_managed_in_their_vault() -> None:
    """Each in its own vault."""
    limits = {"main": Limits(removal_percent=10), "spare": Limits(removal_percent=10)}
    removals = tuple(changes("delete", 2))

    def found(number: int, vault: str) -> list[str]:
        refs = [ref(f"in-sync{index}", "primary", vault) for index in range(number)]
        in_sync = (Change(each, "unchanged", managed=True) for each in refs)
        return breaches(count(Plan((*removals, *in_sync))), limits)

    assert found(18, "main") == []
    assert "2 of the 19 secrets" in found(17, "main")[0]
    assert "2 of the 2 secrets" in found(18, "spare")[0]


def test_disabled_and_deleted_count_together() -> None:
    """One secret of each kind is two removals."""
    assert len(broken(*changes("disable", 1), *changes("delete", 1))) == 1


def test_a_recovery_counts_as_a_create() -> None:
    """A recovered secret is as new to the vault as a created one."""
    assert broken(*changes("recover", 2), *changes("create", 2), creates=4) == []
    (text,) = broken(*changes("recover", 2), *changes("create", 2), creates=3)
    assert "4 secrets would be created or recovered, limits.creates is 3" in text


@pytest.mark.parametrize("kind", sorted(WRITES))
@pytest.mark.parametrize("how", ["read-only", "needs accept"])
def test_changes_that_are_not_written_do_not_count(kind: ChangeKind, how: str) -> None:
    """Read-only changes and changes that need `--accept` break no limit, however many there are."""
    unwritten = {"read_only": True} if how == "read-only" else {"needs_accept": "too often"}
    found = [replace(change, **unwritten) for change in changes(kind, 20)]
    assert broken(*found, creates=0, update_percent=0, removal_percent=0) == []


KINDS: tuple[ChangeKind, ...] = (*sorted(WRITES), "unchanged", "skipped", "refused", "failed")
CHANGES = st.lists(
    st.tuples(st.sampled_from(KINDS), st.booleans(), st.sampled_from(["main", "spare"]), st.sampled_from([None, "too often"])),
    max_size=40,
).map(lambda drawn: Plan(tuple(Change(ref(f"a{n}", vault=vault), kind, managed=managed, needs_accept=needs_accept) for n, (kind, managed, vault, needs_accept) in enumerate(drawn))))  # fmt: skip
PERCENT = st.integers(0, 100)
LIMITS = st.builds(Limits, creates=st.integers(0, 20), update_percent=PERCENT, removal_percent=PERCENT)


@given(CHANGES, LIMITS, LIMITS)
def test_a_higher_limit_stops_no_more_plans(plan: Plan, one: Limits, other: Limits) -> None:
    """A plan within a limit is within any higher one."""
    higher = Limits(
        creates=max(one.creates, other.creates),
        update_percent=max(one.update_percent, other.update_percent),
        removal_percent=max(one.removal_percent, other.removal_percent),
    )
    vaults = ("main", "spare")

    def broken_limits(limits: Limits) -> set[tuple[str, str]]:
        found = breaches(count(plan), dict.fromkeys(vaults, limits))
        return {(text.split(":")[0], text.split("limits.")[1].split()[0]) for text in found}

    assert broken_limits(higher) <= broken_limits(one)


@given(CHANGES, LIMITS)
def test_a_plan_without_writes_breaks_no_limit(plan: Plan, limits: Limits) -> None:
    """Failures, refusals and changes that need `--accept` never stop a run."""
    quiet = Plan(tuple(change for change in plan.changes if change.kind not in WRITES or change.needs_accept))
    assert breaches(count(quiet), {"main": limits, "spare": limits}) == []


@given(CHANGES)
def test_a_checksum_depends_on_the_writes_only(plan: Plan) -> None:
    """Only writes affect the checksum, and each of them does."""
    assert checksum(plan.writes) == checksum(plan.changes)
    for index in range(len(plan.writes)):
        fewer = plan.writes[:index] + plan.writes[index + 1 :]
        assert checksum(fewer) != checksum(plan.writes)
