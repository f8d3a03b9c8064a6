"""Tags in the cache."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.targets.tags import Tags

TAGS = st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=6)


@given(TAGS, TAGS)
def test_tags_behave_like_a_dictionary(one: dict[str, str], other: dict[str, str]) -> None:
    """In content, order and comparison, on either side."""
    tags = Tags(one)
    assert list(tags.items()) == list(one.items())
    assert (tags == other, other == tags, tags == Tags(other)) == (one == other,) * 3
    assert {**tags, "x": "y"} == {**one, "x": "y"}
    assert all(tags[name] == one[name] for name in one)
    assert repr(tags) == repr(one)


def test_a_missing_name_raises_key_error() -> None:
    """Like a dictionary."""
    tags = Tags({"a": "b"})
    assert (tags.get("b"), "b" in tags, len(tags)) == (None, False, 1)
    with pytest.raises(KeyError):
        tags["b"]


def test_equal_names_and_values_are_shared() -> None:
    """Each is one object in memory."""
    one, other = (Tags(json.loads('{"name": "value"}')) for _ in range(2))
    assert one._names is other._names
    assert one["name"] is other["name"]
