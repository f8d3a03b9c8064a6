"""What a process knows of a secret's versions is good only while the latest one is the one that it knows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from keysync.targets.interface import History
from keysync.targets.versions import Versions

SERVICE = datetime(2019, 1, 1, tzinfo=UTC)
"""The service's clock, which is years behind: only differences count."""
DAY = timedelta(days=1)


class Clock:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def versions() -> tuple[Versions, Clock]:
    clock = Clock()
    return Versions(clock), clock


def test_nothing_is_known_before_it_was_learned() -> None:
    """A secret that this process has neither listed nor made is looked up."""
    assert versions()[0].of("a", "v1") is None


def test_what_was_learned_is_good_for_that_version_alone() -> None:
    """Once another version is the latest the history is looked up again."""
    known, _ = versions()
    known.learn("a", "v2", [SERVICE - DAY * 9, SERVICE], SERVICE)
    assert known.of("a", "v2") == History(2, 1)
    assert known.of("A", "v2") == History(2, 1)
    assert known.of("a", "v3") is None
    assert known.of("b", "v2") is None


def test_a_write_continues_what_is_known() -> None:
    """After a write of this process no listing is needed: it is one version more, made now."""
    known, clock = versions()
    known.learn("a", "v2", [SERVICE - DAY * 9, SERVICE], SERVICE)
    clock.now += 3600
    known.add("a", "v2", "v3")
    assert known.of("a", "v3") == History(3, 2)
    assert known.of("a", "v2") is None


def test_a_secret_that_was_just_made_has_one_version() -> None:
    """What was made where nothing was needs no listing either."""
    known, _ = versions()
    known.add("a", None, "v1")
    assert known.of("a", "v1") == History(1, 1)


def test_a_write_after_another_writers_version_is_looked_up() -> None:
    """Where the version before was not the one that is known, the count is not guessed."""
    known, _ = versions()
    known.learn("a", "v2", [SERVICE, SERVICE], SERVICE)
    known.add("a", "v3", "v4")
    assert known.of("a", "v4") is None
    assert known.of("a", "v2") is None


def test_a_name_that_was_made_again_starts_over() -> None:
    """A secret that was deleted and purged leaves nothing of its history to the next one of its name."""
    known, _ = versions()
    known.learn("a", "v450", [SERVICE] * 450, SERVICE)
    known.add("a", None, "w1")
    assert known.of("a", "w1") == History(1, 1)


def test_changes_older_than_a_day_leave_the_history() -> None:
    """Exactly 24 hours after it was made a version is no change of the day any more, and still a version."""
    known, clock = versions()
    known.add("a", None, "v1")
    clock.now += 86_399
    assert known.of("a", "v1") == History(1, 1)
    clock.now += 1
    assert known.of("a", "v1") == History(1, 0)
    assert known.learn("b", "v1", [SERVICE - DAY, SERVICE - DAY + timedelta(seconds=1)], SERVICE) == History(2, 1)


def test_a_listing_is_evidence_for_a_while_and_for_one_version() -> None:
    """A write needs no other listing where a recent one has shown the same latest version."""
    known, clock = versions()
    known.learn("a", "v2", [SERVICE], SERVICE)
    assert known.listed_since("a", "v2", clock.now)
    assert not known.listed_since("a", "v2", clock.now + 1)
    assert not known.listed_since("a", "v3", clock.now)
    known.add("a", "v2", "v3")
    assert not known.listed_since("a", "v3", clock.now)


STEPS = st.lists(st.tuples(st.sampled_from(["ours", "theirs", "look"]), st.integers(0, 30 * 60)), max_size=30)


@given(STEPS)
def test_a_history_that_is_known_is_true(steps: list[tuple[str, int]]) -> None:
    """Whoever writes in whatever order, what is known without a listing is what a listing would show."""
    known, clock = versions()
    made: list[float] = []

    def listed() -> History:
        return History(len(made), sum(clock.now - each < DAY.total_seconds() for each in made))

    for step, minutes in steps:
        clock.now += minutes * 60
        latest = f"v{len(made)}" if made else None
        if step == "look" and latest is not None:
            known.learn(
                "a",
                latest,
                [SERVICE + timedelta(seconds=each) for each in made],
                SERVICE + timedelta(seconds=clock.now),
            )
        elif step != "look":
            made.append(clock.now)
            if step == "ours":
                known.add("a", latest, f"v{len(made)}")
        found = known.of("a", f"v{len(made)}")
        assert found in (None, listed())
        assert found is not None or step != "look" or not made
