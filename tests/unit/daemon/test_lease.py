"""Who leads, by time alone: no two at once, whatever gets lost or late."""

from __future__ import annotations

import heapq
from collections.abc import Generator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.daemon.lease import LeaseState, ObservedLease

DURATION, DEADLINE = 10.0, 7.0


def test_a_lead_counts_from_when_its_renewal_was_sent() -> None:
    """Not from when the answer came, which may be much later."""
    state = LeaseState(DURATION, DEADLINE)
    assert not state.leads(100.0)
    assert state.renewed(100.0, 103.0) == ("elected",)
    assert (state.until, state.leads(106.9), state.leads(107.0)) == (107.0, True, False)


def test_a_renewal_prolongs_it_without_another_term() -> None:
    """Nothing changes for a replica that already leads."""
    state = LeaseState(DURATION, DEADLINE)
    state.renewed(100.0, 100.1)
    assert state.renewed(102.0, 102.1) == ()
    assert state.until == 109.0


def test_without_a_renewal_it_ends_and_what_is_under_way_has_less_than_the_lease() -> None:
    """The change is reported once."""
    state = LeaseState(DURATION, DEADLINE)
    state.renewed(100.0, 100.1)
    assert state.advance(106.9) == ()
    assert state.advance(107.0) == ("lost",)
    assert state.advance(108.0) == ()
    assert 0 < state.grace(107.0) < DURATION - DEADLINE
    assert state.grace(110.0) == 0.0


def test_a_lead_that_another_has_taken_has_no_grace() -> None:
    """The other leads by then."""
    state = LeaseState(DURATION, DEADLINE)
    state.renewed(100.0, 100.1)
    assert state.lost_to_other(103.0) == ("lost",)
    assert state.grace(103.0) == 0.0
    assert state.lost_to_other(104.0) == ()


def test_news_that_come_after_the_end_begin_another_term() -> None:
    """The stop of the one before holds for its runs, though the lease was never another's."""
    state = LeaseState(DURATION, DEADLINE)
    state.renewed(100.0, 100.1)
    assert state.renewed(106.0, 108.0) == ("lost", "elected")


def test_news_that_are_too_old_begin_none() -> None:
    """As after a process was frozen between sending and learning."""
    state = LeaseState(DURATION, DEADLINE)
    assert state.renewed(100.0, 130.0) == ()
    assert not state.leads(130.0)


def test_late_news_do_not_shorten_a_lead() -> None:
    """Of two renewals the later one counts."""
    state = LeaseState(DURATION, DEADLINE)
    state.renewed(102.0, 102.1)
    state.renewed(100.0, 102.2)
    assert state.until == 109.0


@pytest.mark.parametrize("holder", [None, "me"])
def test_a_free_or_own_lease_may_be_written(holder: str | None) -> None:
    """After a release at once."""
    sightings = ObservedLease()
    sightings.record_read("1", holder, 10.0, 100.0)
    assert sightings.free_at("me", 10.0) <= 100.0


def test_a_lease_of_another_may_be_taken_when_it_was_still_for_its_whole_time() -> None:
    """Each write to it restarts the time; reading it again does not."""
    sightings = ObservedLease()
    sightings.record_read("1", "you", 10.0, 100.0)
    sightings.record_read("2", "you", 10.0, 105.0)
    sightings.record_read("2", "you", 10.0, 112.0)
    assert sightings.free_at("me", 10.0) > 114.9
    assert sightings.free_at("me", 10.0) <= 115.0


@pytest.mark.parametrize(("mine", "theirs"), [(10.0, 30.0), (30.0, 10.0)])
def test_the_longer_of_two_durations_holds(mine: float, theirs: float) -> None:
    """While a roll-out changes it, each has its own."""
    sightings = ObservedLease()
    sightings.record_read("1", "you", theirs, 100.0)
    assert sightings.free_at("me", mine) > 129.9
    assert sightings.free_at("me", mine) <= 130.0


# Two and three candidates over a network that loses and delays


class Lease:
    """The lease on the server."""

    def __init__(self) -> None:
        self.version = 0
        self.holder: str | None = None


class Replica:
    """A candidate: it reads, judges, writes and sleeps, as `LeaderElector` does."""

    def __init__(self, name: str, lease: Lease, random: Random) -> None:
        self.name = name
        self.lease = lease
        self.random = random
        self.state = LeaseState(DURATION, DEADLINE)
        self.sightings = ObservedLease()
        self.now = 0.0

    def leg(self) -> float:
        """How long a message takes one way."""
        return self.random.choice((0.0, 0.01, 0.5, 3.0, 6.0))

    def lost(self) -> bool:
        """Whether a message never arrives."""
        return self.random.random() < 0.25

    def live(self) -> Generator[float, None, None]:
        """Yields how long it does nothing each time."""
        while True:
            yield from self.run_key()
            yield self.random.choice((2.0, 2.0, 2.0, 15.0))  # now and then it is frozen

    def run_key(self) -> Generator[float, None, None]:
        yield self.leg()
        version, holder = self.lease.version, self.lease.holder
        yield self.leg()
        if self.lost():
            return
        self.sightings.record_read(str(version), holder, DURATION, self.now)
        if holder not in {None, self.name}:
            self.state.lost_to_other(self.now)
        if self.sightings.free_at(self.name, DURATION) > self.now:
            return
        sent = self.now
        yield self.leg()
        if self.lost() or self.lease.version != version:
            return
        self.lease.version, self.lease.holder = version + 1, self.name
        yield self.leg()
        if not self.lost():
            self.state.renewed(sent, self.now)


@given(seed=st.integers(0, 2**32), count=st.integers(2, 3))
def test_two_replicas_never_lead_at_once(seed: int, count: int) -> None:
    """Nor may a write of one go on while another leads, whatever is lost, late or frozen."""
    random = Random(seed)  # noqa: S311  # chance for a simulation
    lease = Lease()
    replicas = [Replica(f"replica-{number}", lease, random) for number in range(count)]
    lives = [replica.live() for replica in replicas]
    queue = [(random.random(), number) for number in range(count)]
    heapq.heapify(queue)
    led: set[str] = set()
    for _ in range(400):
        now, number = heapq.heappop(queue)
        replicas[number].now = now
        heapq.heappush(queue, (now + next(lives[number]), number))
        may_write = {replica.name for replica in replicas if replica.state.grace(now) > 0}
        assert len(may_write) <= 1
        led |= may_write
    assert led
