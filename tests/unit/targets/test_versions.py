"""What a process knows of a secret's versions is good only while the latest one is the one that it knows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from keysync.targets.interface import History
from keysync.targets.versions import Versions

START = datetime(2026, 11, 24, 5, 22, tzinfo=UTC)
DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def versions() -> tuple[Versions, Clock]:
    clock = Clock()
    return Versions(clock), clock


def test_nothing_is_known_before_it_was_learned() -> None:
    """A secret that this process has neither listed nor made is looked up."""
    assert versions()[0].of("a", "v1") is None


def test_what_was_learned_is_good_for_that_version_alone() -> None:
    """Once another version is the latest, whoever made it, the history is looked up anew."""
    known, _ = versions()
    known.learn("a", "v2", [START - DAY * 9, START])
    assert known.of("a", "v2") == History(2, (START,))
    assert known.of("A", "v2") == History(2, (START,))
    assert known.of("a", "v3") is None
    assert known.of("b", "v2") is None


def test_a_write_continues_what_is_known() -> None:
    """After a write of our own no listing is needed: it is one version more, made now."""
    known, clock = versions()
    known.learn("a", "v2", [START - DAY * 9, START])
    clock.now += timedelta(hours=1)
    known.add("a", "v2", "v3")
    assert known.of("a", "v3") == History(3, (START, clock.now))
    assert known.of("a", "v2") is None


def test_a_secret_that_was_just_made_has_one_version() -> None:
    """What was made where nothing stood needs no listing either."""
    known, _ = versions()
    known.add("a", None, "v1")
    assert known.of("a", "v1") == History(1, (START,))


def test_a_write_after_a_version_of_somebody_else_is_looked_up() -> None:
    """Where the version before was not the one that is known, the count is not guessed."""
    known, _ = versions()
    known.learn("a", "v2", [START, START])
    known.add("a", "v3", "v4")
    assert known.of("a", "v4") is None
    assert known.of("a", "v2") is None


def test_a_name_that_was_made_anew_starts_over() -> None:
    """A secret that was deleted and purged leaves nothing of its history to the next one of its name."""
    known, _ = versions()
    known.learn("a", "v450", [START] * 450)
    known.add("a", None, "w1")
    assert known.of("a", "w1") == History(1, (START,))


def test_changes_older_than_a_day_leave_the_history() -> None:
    """Exactly 24 hours after it was made a version is no change of the day any more, and still a version."""
    known, clock = versions()
    known.add("a", None, "v1")
    clock.now = START + DAY - TICK
    assert known.of("a", "v1") == History(1, (START,))
    clock.now = START + DAY
    assert known.of("a", "v1") == History(1, ())
    assert known.learn("b", "v1", [START, START + TICK]) == History(2, (START + TICK,))


STEPS = st.lists(st.tuples(st.sampled_from(["ours", "theirs", "look"]), st.integers(0, 30 * 60)), max_size=30)


@given(STEPS)
def test_a_history_that_is_told_is_true(steps: list[tuple[str, int]]) -> None:
    """Whoever writes in whatever order, what is told without a listing is what a listing would show."""
    known, clock = versions()
    made: list[datetime] = []

    def listed() -> History:
        return History(len(made), tuple(each for each in made if each > clock.now - DAY))

    for step, minutes in steps:
        clock.now += timedelta(minutes=minutes)
        latest = f"v{len(made)}" if made else None
        if step == "look" and latest is not None:
            known.learn("a", latest, made)
        elif step != "look":
            made.append(clock.now)
            if step == "ours":
                known.add("a", latest, f"v{len(made)}")
        told = known.of("a", f"v{len(made)}")
        assert told in (None, listed())
        assert told is not None or step != "look" or not made
