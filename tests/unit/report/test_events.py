"""Each change of state causes one event; an unchanged state causes none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.failures import CloudError, FailureRecord
from keysync.report.events import stop_transitions, transitions
from keysync.sync.model import BAD, DONE, ItemRef, Outcome, Report, Result
from tests.support.runs import GROUP, ref

OUTCOMES: tuple[Outcome, ...] = ("unchanged", "skipped", "create", "update", *sorted(DONE.values()), *sorted(BAD))
PASSED = Report("run-1", False, "c0ffee", datetime(2026, 11, 24, tzinfo=UTC), 1.0, 1, ())
ERROR = FailureRecord(
    kind="cloud_error",
    summary="HTTP 403: AuthorizationFailed: no",
    http_status=403,
    cloud_error=CloudError("AuthorizationFailed", "no"),
    request_id="request-1",
    correlation_id="correlation-1",
    hint="the identity lacks the action x",
)


def names(outcomes: Sequence[Outcome]) -> list[str]:
    """The events of one item that has these outcomes in turn, one a run."""
    failed: set[ItemRef] = set()
    event_names: list[str] = []
    for outcome in outcomes:
        events, failed = transitions(failed, [Result(ref("alpha"), outcome)])
        event_names += [event.name for event in events]
    return event_names


@pytest.mark.parametrize(
    ("outcomes", "event_names"),
    [
        (["unchanged", "unchanged"], []),
        (["failed", "failed", "failed"], ["failed"]),
        (["refused", "failed", "unknown"], ["failed"]),
        (["unchanged", "failed", "unchanged", "unchanged"], ["failed", "recovered"]),
        (["failed", "updated"], ["failed", "recovered", "changed"]),
        (["created", "updated", "adopted"], ["changed", "changed", "changed"]),
        (["failed", "skipped", "failed"], ["failed"]),
        (["failed", "update", "unchanged"], ["failed", "recovered"]),
        (["skipped", "create"], []),
    ],
)
def test_a_change_of_state_is_one_event(outcomes: list[Outcome], event_names: list[str]) -> None:
    """A failure, a recovery and each write are events. A skipped item keeps its state."""
    assert names(outcomes) == event_names


@given(st.lists(st.sampled_from(OUTCOMES), max_size=30))
def test_failed_and_recovered_alternate(outcomes: list[Outcome]) -> None:
    """For any outcomes, an item never fails twice in a row, and recovers only after a failure event."""
    event_names = [name for name in names(outcomes) if name != "changed"]
    assert event_names == [("failed", "recovered")[number % 2] for number in range(len(event_names))]


PASSES = st.lists(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(OUTCOMES), min_size=1), min_size=1, max_size=12
)


@given(PASSES)
def test_items_are_independent(runs: list[dict[str, Outcome]]) -> None:
    """The events of an item depend only on its own outcomes, not on other items in its runs."""
    failed: set[ItemRef] = set()
    event_names: dict[str, list[str]] = defaultdict(list)
    for outcomes in runs:
        events, failed = transitions(failed, [Result(ref(name), outcome) for name, outcome in outcomes.items()])
        for event in events:
            event_names[event.fields["account"].removeprefix(f"{GROUP}/")].append(event.name)
    for name in ("a", "b", "c"):
        assert event_names[name] == names([outcomes[name] for outcomes in runs if name in outcomes])


@given(PASSES)
def test_the_earlier_states_are_not_modified(runs: list[dict[str, Outcome]]) -> None:
    """The function is pure."""
    failed: set[ItemRef] = set()
    for outcomes in runs:
        results = [Result(ref(name), outcome) for name, outcome in outcomes.items()]
        before = set(failed)
        first = transitions(failed, results)
        assert failed == before
        assert transitions(failed, results) == first
        failed = first[1]


def stop(checksum: str) -> Report:
    return replace(PASSED, checksum=checksum, stopped=f"too much, accept {checksum}")


@pytest.mark.parametrize(
    ("reports", "event_names"),
    [
        ([PASSED, PASSED], []),
        ([stop("a"), stop("a"), stop("a")], ["stopped a"]),
        ([stop("a"), stop("b"), stop("b"), stop("a")], ["stopped a", "stopped b", "stopped a"]),
        ([stop("a"), PASSED, PASSED], ["stopped a", "released a"]),
        ([stop("a"), PASSED, stop("a")], ["stopped a", "released a", "stopped a"]),
        ([stop("a"), replace(PASSED, interrupted=True), stop("a"), PASSED], ["stopped a", "released a"]),
    ],
)
def test_a_stop_is_one_event_for_each_plan_and_one_at_its_end(reports: list[Report], event_names: list[str]) -> None:
    """The same blocked plan causes no second event. An interrupted run does not end a stop."""
    blocked: str | None = None
    found: list[str] = []
    for report in reports:
        events, blocked = stop_transitions(blocked, report)
        found += [f"{event.name} {event.fields['checksum']}" for event in events]
    assert found == event_names


def test_an_event_of_an_item_has_the_documented_fields() -> None:
    """The item, its outcome, and the failure without the service's whole reply."""
    [event], _ = transitions((), [Result(ref("alpha"), "failed", reason=ERROR.summary, error=ERROR)])
    assert event.name == "failed"
    verdict = event.fields.pop("verdict")
    assert verdict is None or isinstance(verdict, str)
    assert event.fields == {
        "account": f"{GROUP}/alpha",
        "vault": "main",
        "secret": "alpha-primary-key",
        "key": "primary",
        "outcome": "failed",
        "reason": "HTTP 403: AuthorizationFailed: no",
        "error": {
            "kind": "cloud_error",
            "http_status": 403,
            "code": "AuthorizationFailed",
            "request_id": "request-1",
            "hint": "the identity lacks the action x",
        },
    }


def test_an_event_of_a_stop_has_the_same_fields_and_its_checksum() -> None:
    """Fields of an item are null, so that a receiver handles one shape."""
    [item], _ = transitions((), [Result(ref("alpha"), "created")])
    [stopped], _ = stop_transitions(None, replace(PASSED, stopped="too much"))
    assert set(stopped.fields) == {*item.fields, "checksum"}
    assert [stopped.fields[name] for name in ("checksum", "reason", "account")] == ["c0ffee", "too much", None]
