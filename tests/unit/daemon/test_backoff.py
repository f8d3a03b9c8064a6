"""An account that keeps failing is tried less often, and soon again after an operator has acted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.daemon.backoff import Backoff, BackoffPolicy, BackoffState, lasts
from keysync.failures import CloudError, FailureKind, FailureRecord
from tests.support.virtual_clock import seeded

INTERVAL = 300.0


def record(
    kind: FailureKind, status: int | None = None, *, code: str | None = None, retry_after: float | None = None
) -> FailureRecord:
    return FailureRecord(kind, "s", status, CloudError(code, "m") if code else None, retry_after=retry_after)


FORBIDDEN = record("cloud_error", 403, code="AuthorizationFailed")
LASTING = [
    FORBIDDEN,
    record("cloud_error", 404, code="ResourceNotFound"),
    record("cloud_error", 409, code="ScopeLocked"),
    record("cloud_error", 400, code="BadRequest"),
    record("http_error", 403),
    record("authentication", 401, code="AADSTS7000215"),
    record("authentication"),
    record("credential_unavailable"),
    record("shared_key_disabled", 403),
    record("challenge"),
]
PASSING = [
    record("throttled", 429),
    record("throttled", 503),
    record("cloud_error", 500, code="InternalServerError"),
    record("http_error", 502),
    record("http_error", 408),
    record("authentication", 503),
    record("timeout"),
    record("connection"),
    record("dns"),
    record("tls"),
    record("invalid_response", 200),
    record("internal"),
]


@pytest.mark.parametrize("failure", LASTING, ids=str)
def test_lasting_failures(failure: FailureRecord):
    """Roles, names, locks and credentials stay wrong until an operator acts."""
    assert lasts(failure)


@pytest.mark.parametrize("failure", PASSING, ids=str)
def test_transient_failures(failure: FailureRecord):
    """Trouble of the network or the service is no reason to leave an account out."""
    assert not lasts(failure)
    backoff = Backoff[str](seeded())
    for _ in range(50):
        assert backoff.failed("a", failure, 100.0, INTERVAL) == BackoffState(0, 100.0)


def test_one_failure_changes_nothing():
    """The next try is in the next ordinary pass."""
    backoff = Backoff[str](seeded())
    assert backoff.failed("a", FORBIDDEN, 100.0, INTERVAL) == BackoffState(1, 100.0)
    assert backoff.ready("a", 100.0)
    assert backoff.ready("another", 100.0)


def test_the_first_five_tries_at_five_minutes_are_on_time():
    """An operator who has just assigned a role does not wait for a backoff to end."""
    policy = BackoffPolicy()
    assert [policy.longest(failures, INTERVAL) for failures in range(1, 6)] == [0.0, 30.0, 60.0, 120.0, 240.0]
    assert policy.longest(5, INTERVAL) < INTERVAL < policy.longest(6, INTERVAL)
    assert INTERVAL < policy.longest(10_000, INTERVAL) < 2 * INTERVAL


@given(st.integers(2, 5000), st.integers(0, 999))
def test_a_repaired_account_is_noticed_by_the_next_run_but_one(failures: int, seed: int):
    """However long it failed, it never skips two runs in a row."""
    backoff = Backoff[str](seeded(seed), BackoffPolicy(base=30.0, cap=1.95))
    now = 1000.0
    for _ in range(min(failures, 40)):
        state = backoff.failed("a", FORBIDDEN, now, INTERVAL)
        assert now <= state.retry_at <= now + min(1.95 * INTERVAL, 30.0 * 2 ** max(0, state.failures - 2))
        assert not backoff.ready("a", state.retry_at - 1e-6) or state.retry_at == now
        assert backoff.ready("a", state.retry_at)
        now = state.retry_at + INTERVAL


def test_many_that_fail_together_do_not_come_back_together():
    """Chance spreads them over the whole of the time."""
    backoff = Backoff[int](seeded())
    for key in range(200):
        for _ in range(12):
            backoff.failed(key, FORBIDDEN, 0.0, INTERVAL)
    tenths = {int(state.retry_at // (INTERVAL / 5)) for state in backoff.states().values()}
    assert tenths == set(range(10))


def test_success_resets():
    """Who was well once begins from nothing."""
    backoff = Backoff[str](seeded())
    for _ in range(9):
        backoff.failed("a", FORBIDDEN, 0.0, INTERVAL)
    backoff.succeeded("a")
    backoff.succeeded("never failed")
    assert backoff.states() == {}
    assert backoff.failed("a", FORBIDDEN, 0.0, INTERVAL) == BackoffState(1, 0.0)


def test_retry_now_includes_all_and_keeps_the_counts():
    """SIGUSR1 tries all; one that fails again is not at its beginning."""
    backoff = Backoff[str](seeded())
    for key in "ab":
        for _ in range(9):
            backoff.failed(key, FORBIDDEN, 1000.0, INTERVAL)
    assert not backoff.ready("a", 1000.0)
    backoff.retry_now("a")
    assert (backoff.ready("a", 1000.0), backoff.ready("b", 1000.0)) == (True, False)
    backoff.retry_now()
    assert backoff.ready("b", 1000.0)
    assert backoff.failed("a", FORBIDDEN, 1000.0, INTERVAL).failures == 10


@pytest.mark.parametrize(
    ("retry_after", "kept"), [(20.0, 20.0), (1200.0, 1.95 * INTERVAL), (1e9, 1.95 * INTERVAL), (None, 0.0)]
)
def test_retry_after_is_kept_to_within_reason(retry_after: float | None, kept: float):
    """One account's time to wait is kept to, but never for two runs in a row: lateness is an outage."""
    backoff = Backoff[str](seeded())
    assert (
        backoff.failed("a", record("throttled", 429, retry_after=retry_after), 10.0, INTERVAL).retry_at == 10.0 + kept
    )


def test_trouble_in_between_does_not_reset_what_lasts():
    """A time-out between two refusals is no success."""
    backoff = Backoff[str](seeded())
    counts = [
        backoff.failed("a", failure, 0.0, INTERVAL).failures for failure in (FORBIDDEN, record("timeout"), FORBIDDEN)
    ]
    assert counts == [1, 1, 2]


def test_a_reload_forgets_removed_accounts():
    """An account that comes back later begins from nothing."""
    backoff = Backoff[str](seeded())
    backoff.failed("a", FORBIDDEN, 0.0, INTERVAL)
    backoff.failed("b", FORBIDDEN, 0.0, INTERVAL)
    backoff.keep(["b", "c"])
    assert set(backoff.states()) == {"b"}


@pytest.mark.parametrize("took", [0.0, 10.0, 120.0, 2 * INTERVAL])
def test_a_run_that_took_long_to_fail_costs_no_second_one(took: float):
    """The bound counts from the start of the run: the run after the next is never skipped, whatever Retry-After says."""
    backoff: Backoff[str] = Backoff(seeded())
    state = backoff.failed("a", record("throttled", 429, retry_after=1200.0), 1000.0 + took, INTERVAL, since=1000.0)
    assert state.retry_at < 1000.0 + 2 * INTERVAL
