"""Which results the log of a daemon contains once, and which are counted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from keysync.failures import CloudError, FailureRecord
from keysync.report.log import RunLog
from keysync.sync.model import Report, Result
from tests.support.runs import ref

NOW = datetime(2026, 11, 24, 5, 22, tzinfo=UTC)


def failure(status: int, code: str, message: str = "no") -> FailureRecord:
    return FailureRecord("cloud_error", message, status, CloudError(code, message), request_id=message)


def failed(status: int = 403, code: str = "Forbidden", message: str = "no") -> Result:
    return Result(ref("alpha"), "failed", error=failure(status, code, message))


def logged(*runs: Sequence[Result]) -> list[list[tuple[str, int | None]]]:
    """For each run its events of items, each with the number of earlier runs with the problem that it ends."""
    log, events = RunLog(), []
    for results in runs:
        with capture_logs() as lines:
            for result in results:
                log.result("run", result)
        events.append([(line["event"], line.get("times_before")) for line in lines])
    return events


def test_the_same_failure_is_logged_once_and_counted_until_it_changes():
    """By status and codes: a message contains times and ids."""
    events = logged(
        [failed(message="at 1")],
        [failed(message="at 2")],
        [failed(message="at 3")],
        [failed(code="Throttled")],
        [failed(404, "Throttled")],
        [Result(ref("alpha"), "updated")],
        [Result(ref("alpha"), "unchanged")],
        [failed()],
    )
    assert events == [
        [("secret.failed", None)],
        [],
        [],
        [("secret.failed", 3)],
        [("secret.failed", 1)],
        [("secret.updated", 1)],
        [],
        [("secret.failed", None)],
    ]


def test_a_failure_that_ends_without_a_write_is_logged():
    """Another writer may have fixed the secret."""
    events = logged([failed()], [failed()], [Result(ref("alpha"), "unchanged")], [Result(ref("alpha"), "unchanged")])
    assert events == [[("secret.failed", None)], [], [("secret.in_sync", 2)], []]


def test_drift_in_a_read_only_vault_is_logged_once():
    """A read-only daemon does not repeat the line in each run."""
    drift = Result(ref("alpha"), "update", verdict="stale")
    events = logged(
        [drift], [drift], [Result(ref("alpha"), "update", verdict="swapped")], [Result(ref("alpha"), "unchanged")]
    )
    assert events == [[("secret.update", None)], [], [("secret.update", 2)], [("secret.in_sync", 1)]]


def test_two_keys_that_changed_at_once_are_one_warning():
    """For the account, not for each key, and not in each run if nothing may be written."""
    both = [Result(ref("alpha", key), "update", verdict="both_changed") for key in ("primary", "secondary")]
    events = logged(both, both)
    assert events == [
        [("account.both_keys_changed", None), ("secret.update", None), ("secret.update", None)],
        [],
    ]


def test_each_write_is_logged():
    """Two in a row are two changes."""
    assert logged(*[[Result(ref("alpha"), "updated")]] * 2) == [[("secret.updated", None)]] * 2


def test_each_secret_is_counted_on_its_own():
    """A failure of one account does not affect another."""
    other = Result(ref("beta"), "failed", error=failure(403, "Forbidden"))
    assert logged([failed()], [failed(), other]) == [[("secret.failed", None)], [("secret.failed", None)]]


def test_a_run_logs_the_number_of_skipped_accounts():
    """Beside its summary."""
    report = Report("run", False, "sum", NOW, 0.5, 1, (), busy=2, warnings=("check this",))
    with capture_logs() as lines:
        RunLog().finished(report)
    events: list[tuple[str, Any]] = [(line["event"], line.get("busy") or line.get("reason")) for line in lines]
    assert events == [("run.warning", "check this"), ("run.skipped", 2), ("run.finished", None)]


@pytest.mark.parametrize(("secrets", "levels"), [(1, ["error"]), (2, ["error", "debug", "warning"])])
def test_a_cause_is_one_error_in_a_run(secrets: int, levels: list[str]):
    """The first failure has all fields. For more than one secret, a warning has the count."""
    names = ("primary", "secondary")[:secrets]
    results = tuple(
        Result(ref("alpha", key), "failed", error=failure(403, "Forbidden", f"at {key}"), reason="denied")
        for key in names
    )
    log = RunLog()
    with capture_logs() as lines:
        for result in results:
            log.result("run", result)
        log.finished(Report("run", False, "sum", NOW, 0.5, 1, results))
    assert [line["log_level"] for line in lines][:-1] == levels
    first, last = lines[0], lines[-2]
    assert first["event"] == "secret.failed"
    error = results[0].error
    assert error is not None
    assert {name: first[name] for name in error.to_dict()} == error.to_dict()
    if secrets > 1:
        assert (last["event"], last["secrets"], last["affected"]) == ("run.cause", 2, "account alpha")
