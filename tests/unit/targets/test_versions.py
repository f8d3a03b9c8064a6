"""The known history of a secret is valid only while its last version is the latest one."""

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
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def versions() -> tuple[Versions, Clock]:
    clock = Clock()
    return Versions(clock), clock


def test_no_history_is_known_at_first() -> None:
    """A secret that this process neither listed nor wrote has no known history."""
    assert versions()[0].of("a", "v1") is None


def test_a_known_history_is_valid_for_its_last_version_only() -> None:
    """After another version it must be listed again."""
    known, _ = versions()
    known.learn("a", "v2", [SERVICE - DAY * 9, SERVICE], SERVICE)
    assert known.of("a", "v2") == History(2, 1)
    assert known.of("A", "v2") == History(2, 1)
    assert known.of("a", "v3") is None
    assert known.of("b", "v2") is None


def test_a_write_extends_the_known_history() -> None:
    """A write of this process adds one version, created now. It needs no listing."""
    known, clock = versions()
    known.learn("a", "v2", [SERVICE - DAY * 9, SERVICE], SERVICE)
    clock.now += 3600
    known.add("a", "v2", "v3")
    assert known.of("a", "v3") == History(3, 2)
    assert known.of("a", "v2") is None


def test_a_new_secret_has_one_version() -> None:
    """A secret that did not exist before needs no listing either."""
    known, _ = versions()
    known.add("a", None, "v1")
    assert known.of("a", "v1") == History(1, 1)


def test_a_write_after_another_writers_version_leaves_no_known_history() -> None:
    """If the previous version is not the known one, the number is not guessed."""
    known, _ = versions()
    known.learn("a", "v2", [SERVICE, SERVICE], SERVICE)
    known.add("a", "v3", "v4")
    assert known.of("a", "v4") is None
    assert known.of("a", "v2") is None


def test_a_recreated_secret_starts_over() -> None:
    """A deleted and purged secret leaves no history for the next one with its name."""
    known, _ = versions()
    known.learn("a", "v450", [SERVICE] * 450, SERVICE)
    known.add("a", None, "w1")
    assert known.of("a", "w1") == History(1, 1)


def test_versions_older_than_a_day_do_not_count_as_recent() -> None:
    """After exactly 24 hours a version counts as a version only."""
    known, clock = versions()
    known.add("a", None, "v1")
    clock.now += 86_399
    assert known.of("a", "v1") == History(1, 1)
    clock.now += 1
    assert known.of("a", "v1") == History(1, 0)
    assert known.learn("b", "v1", [SERVICE - DAY, SERVICE - DAY + timedelta(seconds=1)], SERVICE) == History(2, 1)


def test_a_recent_listing_proves_the_latest_version() -> None:
    """A write needs no other listing if a recent one showed the same latest version."""
    known, clock = versions()
    known.learn("a", "v2", [SERVICE], SERVICE)
    assert known.listed_since("a", "v2", clock.now)
    assert not known.listed_since("a", "v2", clock.now + 1)
    assert not known.listed_since("a", "v3", clock.now)
    known.add("a", "v2", "v3")
    assert not known.listed_since("a", "v3", clock.now)


STEPS = st.lists(st.tuples(st.sampled_from(["ours", "theirs", "look"]), st.integers(0, 30 * 60)), max_size=30)


@given(STEPS)
def test_a_known_history_equals_a_listing(steps: list[tuple[str, int]]) -> None:
    """For any writers in any order, a history known without a listing is what a listing would show."""
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
