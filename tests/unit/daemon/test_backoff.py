"""An account that keeps failing is tried less often, and soon again after an operator has acted."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.daemon.backoff import BOUND, Backoff, lasts, longest
from keysync.failures import CloudError, FailureKind, FailureRecord
from tests.support.virtual_clock import seeded

INTERVAL = 300.0


class Highest(Random):
    """Always draws the highest number."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


class Failing:
    """An account that fails; the times are until when it is skipped."""

    def __init__(self, random: Random | None = None) -> None:
        self.backoff = Backoff()
        self.random = random or Highest()

    def fail(self, failure: FailureRecord, now: float = 0.0, *, since: float | None = None, times: int = 1) -> float:
        """Seconds from `now` until it may run again, after it failed `times`."""
        for _ in range(times):
            self.backoff.failed(failure, now, INTERVAL, now if since is None else since, self.random)
        return self.backoff.retry_at - now


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
    assert Failing().fail(failure, 100.0, times=50) == 0.0


def test_one_failure_changes_nothing():
    """The next try is in the next ordinary run."""
    failing = Failing()
    assert failing.fail(FORBIDDEN, 100.0) == 0.0
    assert Backoff().retry_at < 0.0


def test_the_first_five_tries_at_five_minutes_are_on_time():
    """An operator who has just assigned a role does not wait for a backoff to end."""
    assert [longest(failures, INTERVAL) for failures in range(1, 6)] == [0.0, 30.0, 60.0, 120.0, 240.0]
    assert longest(5, INTERVAL) < INTERVAL < longest(6, INTERVAL)
    assert INTERVAL < longest(10_000, INTERVAL) < 2 * INTERVAL


@given(st.integers(2, 40), st.integers(0, 999))
def test_a_repaired_account_is_noticed_by_the_next_run_but_one(failures: int, seed: int):
    """However long it failed, it never skips two runs in a row."""
    failing, now = Failing(seeded(seed)), 1000.0
    for count in range(1, failures + 1):
        waits = failing.fail(FORBIDDEN, now)
        assert 0.0 <= waits <= min(1.95 * INTERVAL, 30.0 * 2 ** max(0, count - 2))
        now += waits + INTERVAL


def test_many_that_fail_together_do_not_come_back_together():
    """Chance spreads them over the whole of the time."""
    random = seeded()
    tenths = {int(Failing(random).fail(FORBIDDEN, times=12) // (INTERVAL / 5)) for _ in range(200)}
    assert tenths == set(range(10))


def test_success_resets():
    """An account that was well once begins from nothing."""
    failing = Failing()
    assert failing.fail(FORBIDDEN, times=9) > INTERVAL
    failing.backoff.succeeded()
    assert failing.fail(FORBIDDEN) == 0.0
    assert failing.fail(FORBIDDEN) == 30.0


def test_retry_now_keeps_the_count():
    """SIGUSR1 tries it; if it fails again it is not at its beginning."""
    failing = Failing()
    failing.fail(FORBIDDEN, times=3)
    failing.backoff.retry_now()
    assert failing.backoff.retry_at < 0.0
    assert failing.fail(FORBIDDEN) == longest(4, INTERVAL)


@pytest.mark.parametrize(
    ("retry_after", "kept"), [(20.0, 20.0), (1200.0, BOUND * INTERVAL), (1e9, BOUND * INTERVAL), (None, 0.0)]
)
def test_retry_after_is_kept_to_within_reason(retry_after: float | None, kept: float):
    """One account's time to wait is kept to, but never for two runs in a row: lateness is an outage."""
    assert Failing().fail(record("throttled", 429, retry_after=retry_after), 10.0) == kept


def test_trouble_in_between_does_not_reset_what_lasts():
    """A time-out between two refusals is no success."""
    failing = Failing()
    waits = [failing.fail(failure) for failure in (FORBIDDEN, record("timeout"), FORBIDDEN)]
    assert waits == [longest(1, INTERVAL), 0.0, longest(2, INTERVAL)]


@pytest.mark.parametrize("took", [0.0, 10.0, 120.0, 2 * INTERVAL])
def test_a_run_that_took_long_to_fail_costs_no_second_one(took: float):
    """The bound counts from the start of the run: the run after the next is never skipped, whatever Retry-After says."""
    failing = Failing()
    failing.fail(record("throttled", 429, retry_after=1200.0), 1000.0 + took, since=1000.0)
    assert failing.backoff.retry_at < 1000.0 + 2 * INTERVAL
