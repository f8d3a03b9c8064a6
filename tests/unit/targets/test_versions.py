"""The number of versions is known from a tag only while the tag belongs to the version that has it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.value import SecretValue
from keysync.targets.interface import History, StoredSecret
from keysync.targets.versions import COUNT_TAG, SecretProperties, counted_history, history_of, with_count

WRITTEN = datetime(2019, 1, 1, tzinfo=UTC)
"""By the service's clock, which is years behind: only differences count."""
DAY = timedelta(days=1)
PRINT = Fingerprinter().of(SecretValue("x"))


def stored(tag: str | None, created: datetime | None = WRITTEN) -> StoredSecret:
    return StoredSecret("v1", PRINT, {} if tag is None else {COUNT_TAG: tag}, created=created)


def counted(tag: str | None, created: datetime | None = WRITTEN, age: timedelta = timedelta()) -> History | None:
    return counted_history(stored(tag, created), (created or WRITTEN) + age)


def test_a_tag_counts_versions() -> None:
    """All versions, and for a day the versions of one row."""
    tag = with_count({}, History(11, 2), WRITTEN)[COUNT_TAG]
    assert tag == "12 3 2019-01-01T00:00:00Z"
    assert counted(tag) == History(12, 3)
    assert counted(tag, age=DAY - timedelta(seconds=1)) == History(12, 3)
    assert counted(tag, age=DAY) == History(12, 0)


@pytest.mark.parametrize(
    "tag", [None, "", "x", "12", "12 3", "12 x 2019-01-01T00:00:00Z", "0 1 2019-01-01T00:00:00Z",
            "1 0 2019-01-01T00:00:00Z", "1 1 2019-01-01T00:00:00", "1 1 0001-01-01T00:00:00+14:00", "1 1 yesterday",
            "9" * 250],
)  # fmt: skip
def test_without_a_valid_tag_the_versions_are_listed(tag: str | None) -> None:
    """Also for a secret that an older keysync wrote."""
    assert counted(tag) is None


@pytest.mark.parametrize(("seconds", "valid"), [(-3, False), (-2, True), (0, True), (5, True), (6, False)])
def test_a_copied_tag_does_not_count(seconds: int, valid: bool) -> None:
    """Another tool that keeps the tags writes its version at another time than the one in the tag."""
    tag = with_count({}, History(11, 2), WRITTEN)[COUNT_TAG]
    assert (counted(tag, WRITTEN + timedelta(seconds=seconds)) is not None) == valid


def test_without_the_services_time_nothing_is_counted() -> None:
    """The age of the version is not known then, and the next version has no count."""
    tag = with_count({}, History(11, 2), WRITTEN)[COUNT_TAG]
    assert counted_history(stored(tag), None) is None
    assert counted_history(stored(tag, None), WRITTEN) is None
    assert with_count({COUNT_TAG: tag, "a": "b"}, History(1), None) == {"a": "b"}


def test_every_25th_version_is_listed() -> None:
    """A version that was copied within the seconds in which a tag counts is found then."""
    assert counted(with_count({}, History(24, 1), WRITTEN)[COUNT_TAG]) is None
    assert counted(with_count({}, History(25, 1), WRITTEN)[COUNT_TAG]) == History(26, 2)


def test_other_tags_have_priority() -> None:
    """With 15 other tags there is no room for the count; an outdated count is never kept."""
    others = {f"tag-{number}": "x" for number in range(15)}
    assert with_count(others, History(1), WRITTEN) == others
    assert with_count({COUNT_TAG: "1 1 2019-01-01T00:00:00Z", "a": "b"}, None, WRITTEN) == {"a": "b"}
    fourteen = dict(list(others.items())[1:])
    assert with_count({**fourteen, COUNT_TAG: "old"}, History(1), WRITTEN) == {
        **fourteen,
        COUNT_TAG: "2 1 2019-01-01T00:00:00Z",
    }


def test_a_listing_counts_versions_of_a_day() -> None:
    """After exactly 24 hours a version counts as a version only."""
    listed = [SecretProperties("", {}, created=WRITTEN - age) for age in (DAY, DAY - timedelta(seconds=1))]
    assert history_of(listed, WRITTEN) == History(2, 1)


@given(st.lists(st.tuples(st.sampled_from(["ours", "copied"]), st.integers(10, 172_800)), min_size=1, max_size=60))
def test_a_counted_history_is_never_too_low(steps: list[tuple[str, int]]) -> None:
    """For any writers: all versions are counted, and of those of a day none is missing."""
    now, made, latest = WRITTEN, list[datetime](), stored(None)
    for writer, seconds in steps:
        now += timedelta(seconds=seconds)
        listed = history_of([SecretProperties("", {}, created=created) for created in made], now)
        known = counted_history(latest, now) if made else None
        if known is not None:
            assert known.versions == listed.versions
            assert known.today >= listed.today
        tags = latest.tags if writer == "copied" else with_count(latest.tags, known or listed, now)
        latest = replace(latest, tags=tags, created=now)
        made.append(now)
