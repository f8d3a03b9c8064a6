"""Limits in numbers: what counts, what does not, and when a secret has changed too often."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.sync.history import too_many_versions, version_warning
from keysync.sync.limits import Breach, breaches, checksum, max_removals
from keysync.sync.model import REMOVALS, WRITES, Change, ChangeKind, Plan, Result
from keysync.targets.interface import History
from tests.support.runs import Limits, ref

NOW = datetime(2026, 11, 24, 5, 22, tzinfo=UTC)
DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)


def changes(kind: ChangeKind, count: int) -> list[Change]:
    return [Change(ref(f"{kind}{index}"), kind, before="v1", managed=kind != "create") for index in range(count)]


def broken(*found: Change, **limits: int) -> list[str]:
    return [str(breach) for breach in breaches(Plan(found), {"main": Limits(**limits)})]


@pytest.mark.parametrize(
    ("managed", "percent", "most"),
    [(0, 10, 1), (1, 10, 1), (9, 10, 1), (19, 10, 1), (20, 10, 2), (100, 10, 10), (3, 100, 3), (100, 0, 0), (1, 0, 0), (5, 1, 1)],
)  # fmt: skip
def test_one_secret_may_go_or_the_share(managed: int, percent: int, most: int) -> None:
    """A run may remove the share rounded down, one at least, and none at all where the share is 0."""
    assert max_removals(managed, percent) == most


@pytest.mark.parametrize("kind", sorted(REMOVALS))
@pytest.mark.parametrize(("count", "percent", "stops"), [(1, 10, False), (2, 10, True), (2, 20, False), (1, 0, True)])
def test_removals_are_a_share_of_what_is_managed(kind: ChangeKind, count: int, percent: int, stops: bool) -> None:
    """Of ten managed secrets one may be disabled or deleted at 10 percent; one more stops, with both numbers."""
    found = broken(*changes(kind, count), *changes("unchanged", 10 - count), removal_percent=percent)
    assert bool(found) == stops
    for text in found:
        assert f"{count} of the 10 secrets managed there would be disabled or deleted" in text
        assert f"limits.removal_percent is {percent}" in text


def test_what_is_settled_is_managed_in_its_own_vault() -> None:
    """An item that needs nothing counts whether it is in the plan as a change or as a result."""
    limits = {"main": Limits(removal_percent=10), "spare": Limits(removal_percent=10)}
    removals = tuple(changes("delete", 2))

    def found(count: int, vault: str) -> tuple[Breach, ...]:
        in_sync = tuple(Result(ref(f"settled{index}", "primary", vault), "unchanged") for index in range(count))
        return breaches(Plan(removals, in_sync), limits)

    assert found(18, "main") == ()
    assert "2 of the 19 secrets" in str(found(17, "main")[0])
    assert "2 of the 2 secrets" in str(found(18, "spare")[0])


def test_disabled_and_deleted_count_together() -> None:
    """One secret of each kind is two removals."""
    assert len(broken(*changes("disable", 1), *changes("delete", 1))) == 1


def test_a_recovery_counts_as_a_create() -> None:
    """What comes back is as new to a vault as what is made."""
    assert broken(*changes("recover", 2), *changes("create", 2), creates=4) == []
    (text,) = broken(*changes("recover", 2), *changes("create", 2), creates=3)
    assert "4 secrets would be created or recovered, limits.creates is 3" in text


@pytest.mark.parametrize("kind", sorted(WRITES))
@pytest.mark.parametrize("how", ["read-only", "held"])
def test_what_is_not_going_to_be_written_counts_nothing(kind: ChangeKind, how: str) -> None:
    """Read-only changes and those that wait for a person break no limit, however many there are."""
    aside = {"read_only": True} if how == "read-only" else {"needs_accept": "too often"}
    found = [replace(change, **aside) for change in changes(kind, 20)]
    assert broken(*found, creates=0, update_percent=0, removal_percent=0) == []


@pytest.mark.parametrize(("versions", "held"), [(449, False), (450, True), (501, True)])
def test_a_secret_near_500_versions_is_not_written_unasked(versions: int, held: bool) -> None:
    """At 450 versions a write waits for a person, and the number and the way out are told."""
    reason = too_many_versions(History(versions), None)
    assert (reason is not None) == held
    assert not held or f"{versions} versions" in (reason or "")


@pytest.mark.parametrize(("versions", "warns"), [(0, False), (299, False), (300, True), (449, True)])
def test_many_versions_are_warned_of(versions: int, warns: bool) -> None:
    """From 300 versions on there is a warning that names the number."""
    note = version_warning(History(versions))
    assert (note is not None) == warns
    assert (f"{versions} versions" in (note or "")) == warns


@pytest.mark.parametrize(
    ("today", "most", "held"),
    [(0, 1, False), (1, 1, True), (2, 3, False), (3, 3, True), (99, None, False)],
    ids=["none", "one", "two of three", "three of three", "no limit"],
)
def test_changes_of_the_last_24_hours_are_counted(today: int, most: int | None, held: bool) -> None:
    """As many as the limit in 24 hours hold the next one back."""
    reason = too_many_versions(History(99, today), most)
    assert (reason is not None) == held
    assert not held or f"limits.changes_per_day is {most}" in (reason or "")


def test_without_a_history_nothing_is_too_many_versions() -> None:
    """An identity that may not list versions still keeps keys in sync, without warnings that it cannot judge."""
    assert too_many_versions(None, 0) is None
    assert version_warning(None) is None


KINDS: tuple[ChangeKind, ...] = (*sorted(WRITES), "unchanged", "skipped", "refused", "failed")
CHANGES = st.lists(
    st.tuples(st.sampled_from(KINDS), st.booleans(), st.sampled_from(["main", "spare"]), st.sampled_from([None, "held"])),
    max_size=40,
).map(lambda drawn: Plan(tuple(Change(ref(f"a{n}", vault=vault), kind, managed=managed, needs_accept=needs_accept) for n, (kind, managed, vault, needs_accept) in enumerate(drawn))))  # fmt: skip
PERCENT = st.integers(0, 100)
LIMITS = st.builds(Limits, creates=st.integers(0, 20), update_percent=PERCENT, removal_percent=PERCENT)


@given(CHANGES, LIMITS, LIMITS)
def test_a_raised_limit_stops_nothing_more(plan: Plan, one: Limits, other: Limits) -> None:
    """Whatever is let through by a limit is let through by any that is no lower."""
    higher = Limits(
        max(one.creates, other.creates),
        max(one.update_percent, other.update_percent),
        max(one.removal_percent, other.removal_percent),
    )
    vaults = ("main", "spare")
    low = {(breach.vault, breach.text.split("limits.")[1].split()[0]) for breach in breaches(plan, dict.fromkeys(vaults, one))}  # fmt: skip
    high = {(breach.vault, breach.text.split("limits.")[1].split()[0]) for breach in breaches(plan, dict.fromkeys(vaults, higher))}  # fmt: skip
    assert high <= low


@given(CHANGES, LIMITS)
def test_a_plan_that_writes_nothing_breaks_no_limit(plan: Plan, limits: Limits) -> None:
    """Failures, refusals and held changes alone never stop a run."""
    quiet = Plan(tuple(change for change in plan.changes if change.kind not in WRITES or change.needs_accept))
    assert breaches(quiet, {"main": limits, "spare": limits}) == ()


@given(CHANGES)
def test_a_checksum_names_the_writes_and_nothing_else(plan: Plan) -> None:
    """What is not written does not change the checksum, and each write that is taken out does."""
    assert checksum(Plan(plan.writes)) == checksum(plan)
    for index in range(len(plan.writes)):
        fewer = Plan(plan.writes[:index] + plan.writes[index + 1 :])
        assert checksum(fewer) != checksum(plan)
