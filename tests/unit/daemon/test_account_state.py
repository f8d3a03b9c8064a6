"""The state of each account after any sequence of runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keysync.daemon.account_state import AccountStates, Entry
from keysync.failures import FailureRecord
from keysync.report.status import AccountState, AccountStatus
from keysync.sync.model import ItemRef, Outcome, Report, Result
from tests.support.memory_generation import config_of
from tests.support.runs import ref

NOW = datetime(2026, 11, 24, 5, 22, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DENIED = FailureRecord("cloud_error", "no role", 403)


class Books:
    """Account states, and runs that are recorded in them."""

    def __init__(self, *names: str) -> None:
        self.now = NOW
        self.account_done: list[str] = []
        self.account_states = AccountStates(lambda: self.now)
        self.account_states.account_done = lambda entry: self.account_done.append(entry.account.name)
        self.cover(*names)

    def cover(self, *names: str, **more: Any) -> None:
        """A configuration of these accounts."""
        config = config_of(*names, **more)
        self.account_states.cover(config, config.accounts)

    def entry(self, name: str) -> Entry:
        return self.account_states.entries[ref(name).account.lower()]

    def account_status(self, name: str) -> AccountStatus:
        return self.entry(name).status

    def results(self, *results: Result, stopped: str | None = None) -> Report:
        """One run with these results."""
        refs = [result.ref for result in results]
        run_key = self.account_states.begin(refs)
        for result in results:
            self.account_states.result("run", result)
        report = Report("run", False, "sum", self.now, 0.5, len(refs), results, stopped=stopped)
        self.account_states.finished(report)
        self.account_states.end(run_key)
        return report


def result(name: str, outcome: Outcome, key: Any = "primary", **more: Any) -> Result:
    return Result(ref(name, key), outcome, **more)


def pair(name: str, first: Outcome, second: Outcome = "unchanged") -> tuple[Result, Result]:
    return result(name, first), result(name, second, "secondary")


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        (("unchanged", "unchanged"), "in_sync"),
        (("created", "unchanged"), "changed"),
        (("adopted", "recovered"), "changed"),
        (("failed", "updated"), "failing"),
        (("unknown", "unchanged"), "failing"),
        (("failed", "refused"), "failing"),
        (("refused", "unchanged"), "refused"),
        (("refused", "update"), "refused"),
        (("update", "unchanged"), "drift"),
        (("skipped", "unchanged"), "drift"),
    ],
)
def test_the_state_of_an_account_is_its_worst(outcomes: tuple[Outcome, Outcome], state: AccountState):
    """A failure before a refusal, that before a drift; what was written shows until the next run."""
    books = Books("alpha")
    assert books.account_status("alpha").state == "pending"
    books.results(*pair("alpha", *outcomes))
    assert books.account_status("alpha").state == state
    books.results(*pair("alpha", "unchanged"))
    assert books.account_status("alpha").state == "in_sync"


def test_success_and_attempt_differ_and_failures_in_a_row_are_counted():
    """A refusal is neither a success nor a failure in a row. One success resets the count."""
    books = Books("alpha")
    account_status = books.account_status("alpha")
    assert (account_status.last_attempt, account_status.last_success, account_status.failures) == (None, None, 0)
    seen = []
    for outcome in ("created", "failed", "unknown", "refused", "failed", "update", "unchanged"):
        books.now += MINUTE
        books.results(*pair("alpha", outcome))
        account_status = books.account_status("alpha")
        assert account_status.last_attempt == books.now
        seen.append((outcome, account_status.last_success == books.now, account_status.failures))
    assert seen == [
        ("created", True, 0),
        ("failed", False, 1),
        ("unknown", False, 2),
        ("refused", False, 0),
        ("failed", False, 1),
        ("update", False, 0),
        ("unchanged", True, 0),
    ]


def test_an_account_is_done_with_its_last_result():
    """Until then it is busy, and its latest results stay."""
    books = Books("alpha", "beta")
    books.results(*pair("alpha", "unchanged"))
    assert books.account_done == ["alpha"]
    first, second = pair("alpha", "failed", "failed")
    books.account_states.begin([first.ref, second.ref])
    free = [
        one.name for one in books.account_states.free(entry.account for entry in books.account_states.entries.values())
    ]
    assert free == ["beta"]
    books.account_states.result("run", first)
    assert books.entry("alpha").due == {first.ref: first, second.ref: None}
    assert books.account_status("alpha").state == "in_sync"
    books.account_states.result("run", second)
    assert books.account_done == ["alpha", "alpha"]
    assert not books.entry("alpha").due
    assert books.account_status("alpha").state == "failing"


def test_the_worst_speaks_for_the_account():
    """The failure that decides when it is tried again."""
    books = Books("alpha")
    assert books.entry("alpha").worst() is None
    books.results(result("alpha", "unchanged"), result("alpha", "failed", "secondary", error=DENIED))
    assert books.entry("alpha").worst() == DENIED


def test_an_unexpected_result_changes_no_account():
    """A secret of an account that is no longer covered is written down all the same."""
    books = Books("alpha")
    revision = books.account_states.revision
    books.account_states.result("run", result("orphan", "deleted"))
    books.account_states.result("run", result("alpha", "updated"))
    assert books.account_status("alpha").results == ()
    assert [(one.result.ref.account, one.result.outcome) for one in books.account_states.writes] == [
        (ref("alpha").account, "updated"),
        (ref("orphan").account, "deleted"),
    ]
    assert books.account_states.revision > revision


def test_a_run_that_crashed_leaves_nothing_of_itself_behind():
    """Incomplete results do not count, neither then nor after the next complete run."""
    books = Books("alpha")
    books.results(*pair("alpha", "unchanged"))
    renamed = ItemRef(ref("alpha").account, "primary", "main", "another-name")
    refs = [renamed, ref("alpha", "secondary")]
    run_key = books.account_states.begin(refs)
    books.account_states.result("run", Result(renamed, "failed"))
    books.account_states.end(run_key)
    assert not books.entry("alpha").due
    assert books.account_status("alpha").state == "in_sync"
    books.results(*pair("alpha", "unchanged"))
    assert {one.ref for one in books.account_status("alpha").results} == {ref("alpha"), ref("alpha", "secondary")}


def test_a_run_over_some_accounts_says_nothing_of_the_others():
    """The last run is recorded completely; the other accounts keep their state."""
    books = Books("alpha", "beta")
    books.results(*pair("alpha", "created", "created"), *pair("beta", "failed", "failed"))
    books.now += MINUTE
    books.results(*pair("alpha", "unchanged"))
    assert books.account_status("beta").state == "failing"
    assert books.account_status("beta").last_attempt == NOW
    last = books.account_states.last_run
    assert last is not None
    assert (last.started, last.result, last.summary["unchanged"]) == (books.now, "success", 2)


def test_the_history_is_the_newest_two_hundred_writes():
    """Newest first; what changed nothing is not in it."""
    books = Books("alpha")
    for number in range(205):
        books.now = NOW + number * MINUTE
        books.results(result("alpha", "updated", version=f"v{number}"), result("alpha", "unchanged", "secondary"))
    assert len(books.account_states.writes) == 200
    assert [one.result.version for one in books.account_states.writes][:2] == ["v204", "v203"]
    newest = books.account_states.writes[0]
    assert (newest.time, newest.result.ref) == (books.now, ref("alpha"))


def test_what_was_written_is_in_sync_from_then_on():
    """Its verdict, its age and when it changed; what the vault tells of the age comes first."""
    books = Books("alpha")
    books.results(result("alpha", "updated", verdict="stale"), result("alpha", "update", "secondary", verdict="stale"))
    written, drifting = books.account_status("alpha").to_dict()["secrets"]
    assert (written["verdict"], written["changed_at"], written["since"]) == ("in_sync", NOW, NOW)
    assert (drifting["verdict"], drifting["changed_at"]) == ("stale", None)
    books.now += MINUTE
    made = NOW - MINUTE
    books.results(
        result("alpha", "unchanged", verdict="in_sync", since=made), result("alpha", "unchanged", "secondary")
    )
    later = books.account_status("alpha").to_dict()["secrets"][0]
    assert (later["changed_at"], later["since"]) == (NOW, made)


def test_a_safety_stop_holds_those_that_it_kept_from_being_written():
    """Its message is there until a run over any of its accounts is not stopped."""
    books = Books("alpha", "beta")
    stops: list[str | None] = []
    books.results(*pair("alpha", "skipped"), *pair("beta", "unchanged"), stopped="too many: --accept abc")
    stops.append(books.account_states.stopped)
    assert [books.account_status(name).state for name in ("alpha", "beta")] == ["needs_accept", "in_sync"]
    assert books.account_states.last_run is not None
    assert books.account_states.last_run.result == "stopped"
    books.results(*pair("alpha", "skipped"), *pair("beta", "unchanged"), stopped="still: --accept abc")
    stops.append(books.account_states.stopped)
    books.results(*pair("alpha", "updated"), *pair("beta", "unchanged"))
    stops.append(books.account_states.stopped)
    assert stops == ["too many: --accept abc", "still: --accept abc", None]
    assert books.account_status("alpha").state == "changed"


def test_stops_are_kept_and_released_account_by_account():
    """A run over other accounts releases nothing, and two schedules may be stopped at once."""
    books = Books("alpha", "beta", "gamma")
    books.results(*pair("alpha", "skipped"), stopped="first")
    books.results(*pair("beta", "skipped"), stopped="second")
    books.results(*pair("gamma", "unchanged"))
    assert books.account_states.stopped == "first second"
    books.results(*pair("alpha", "unchanged"))
    assert books.account_states.stopped == "second"
    assert books.account_status("beta").state == "needs_accept"


def test_a_stop_of_accounts_that_are_gone_is_over():
    """No run will ever be over them again."""
    books = Books("alpha", "beta")
    books.results(*pair("alpha", "skipped"), stopped="too many")
    books.cover("beta")
    assert books.account_states.stopped is None
    books.results(*pair("beta", "skipped"), stopped="too many")
    books.cover("beta", "gamma")
    assert books.account_states.stopped == "too many"


def test_entries_know_their_schedule_and_whether_they_are_read_only():
    """An account has the general schedule unless it has its own."""
    books = Books("other")
    own = config_of("alpha", "beta", accounts={"schedule": {"every": "1h"}}, read_only=True).accounts
    books.account_states.cover(config_of("gamma"), (*own, *config_of("gamma").accounts))
    assert list(books.account_states.entries) == [ref(name).account.lower() for name in ("alpha", "beta", "gamma")]
    described = [(entry.status.schedule, entry.interval) for entry in books.account_states.entries.values()]
    assert described == [("every 1h", 60 * MINUTE), ("every 1h", 60 * MINUTE), ("every 5m", 5 * MINUTE)]
    assert not any(entry.status.read_only for entry in books.account_states.entries.values())
    books.cover("alpha", read_only=True)
    assert books.account_status("alpha").read_only
    books.cover("alpha", accounts={"read_only": True})
    assert books.account_status("alpha").read_only


def test_a_reload_keeps_what_is_known():
    """Accounts that stay keep their books under the new schedule; others go, new ones come with empty ones."""
    books = Books("alpha", "beta")
    books.results(*pair("alpha", "created", "created"), *pair("beta", "failed", "failed"))
    kept = books.entry("alpha")
    revision = books.account_states.revision
    books.cover("alpha", "gamma", read_only=True, schedule={"every": "1h"})
    assert books.account_states.revision > revision
    assert books.entry("alpha") is kept
    assert (kept.status.schedule, kept.interval, kept.status.read_only) == ("every 1h", 60 * MINUTE, True)
    assert kept.status.last_success == NOW
    assert [entry.account.name for entry in books.account_states.entries.values()] == ["alpha", "gamma"]
    assert books.account_status("gamma").state == "pending"


def test_an_account_that_a_run_is_busy_with_stays_so_over_a_reload():
    """Two configurations never work on one account at a time."""
    books = Books("alpha")
    run_key = books.account_states.begin([ref("alpha")])
    books.cover("alpha", "beta")
    assert [one.name for one in books.account_states.free(config_of("alpha", "beta").accounts)] == ["beta"]
    books.account_states.end(run_key)
    assert [one.name for one in books.account_states.free(config_of("alpha").accounts)] == ["alpha"]


def test_an_account_is_stale_after_three_intervals():
    """Counted from its last success, or from the start if it never had one."""
    entry = Books("alpha").entry("alpha")
    assert entry.stale_at(NOW) == NOW + 15 * MINUTE
    entry.status = replace(entry.status, last_success=NOW + 10 * MINUTE)
    assert entry.stale_at(NOW) == NOW + 25 * MINUTE


def test_a_failure_is_shown_as_in_the_report():
    """With the contract's error object."""
    books = Books("alpha")
    books.results(result("alpha", "failed", error=DENIED, reason="no role"))
    (secret,) = books.account_status("alpha").to_dict()["secrets"]
    assert (secret["outcome"], secret["reason"], secret["error"]) == ("failed", "no role", DENIED.to_dict())
    assert secret["cause"] == "failed cloud_error 403"


def test_forget_resets_every_account():
    """Another process checks the accounts now. The writes of this one stay, and runs start over."""
    books = Books("alpha", "beta")
    books.results(*pair("alpha", "updated"), *pair("beta", "skipped"), stopped="too many")
    books.account_states.forget()
    assert {books.account_status(name).state for name in ("alpha", "beta")} == {"pending"}
    assert (books.account_status("alpha").last_attempt, books.account_status("alpha").schedule) == (None, "every 5m")
    assert books.account_states.stopped is None
    assert len(books.account_states.writes) == 1
    books.results(*pair("alpha", "unchanged"))
    assert books.account_status("alpha").state == "in_sync"


def test_a_run_that_ends_late_does_not_free_accounts_of_another():
    """An account that was done early is already in the next run when the first run, which waited for another account, ends."""
    books = Books("alpha", "hung")
    alpha, hung = ref("alpha"), ref("hung")
    first = books.account_states.begin([alpha, hung])
    books.account_states.result("run-1", Result(alpha, "unchanged"))
    second = books.account_states.begin([alpha])
    books.account_states.end(first)
    assert [
        account.name for account in books.account_states.free(books.entry(name).account for name in ("alpha", "hung"))
    ] == ["hung"]
    books.account_states.end(second)
    assert len(books.account_states.free(books.entry(name).account for name in ("alpha", "hung"))) == 2


def test_unchanged_results_keep_their_objects():
    """A run that finds all in sync leaves the results of the one before; one that finds something else does not."""
    books = Books("alpha")
    books.results(*pair("alpha", "unchanged"))
    before = books.account_status("alpha").results
    books.now += MINUTE
    books.results(*pair("alpha", "unchanged"))
    assert books.account_status("alpha").results is before
    assert books.account_status("alpha").last_success == books.now
    books.results(*pair("alpha", "failed"))
    assert [one.outcome for one in books.account_status("alpha").results] == ["failed", "unchanged"]


def test_a_run_that_ends_late_takes_nothing_from_the_next_one():
    """An account that was done with it long before is in another by now."""
    books = Books("alpha")
    results = pair("alpha", "unchanged")
    refs = [one.ref for one in results]
    run_key = books.account_states.begin(refs)
    for one in results:
        books.account_states.result("run", one)
    books.account_states.begin(refs)
    books.account_states.result("run", results[0])
    books.account_states.end(run_key)
    assert books.entry("alpha").due == {refs[0]: results[0], refs[1]: None}
    books.account_states.result("run", results[1])
    assert books.account_done == ["alpha", "alpha"]


def test_a_run_that_could_not_begin_keeps_no_account_busy():
    """Whatever of it was noted before the fault."""
    books = Books("alpha", "beta")

    def refs() -> Iterator[ItemRef]:
        yield ref("alpha")
        raise KeyError("beta")

    with pytest.raises(KeyError):
        books.account_states.begin(refs())
    accounts = [books.entry(name).account for name in ("alpha", "beta")]
    assert books.account_states.free(accounts) == tuple(accounts)
