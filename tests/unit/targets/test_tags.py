"""Tags as they are remembered."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.targets.tags import Tags

TAGS = st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=6)


@given(TAGS, TAGS)
def test_they_are_what_a_dictionary_is(one: dict[str, str], other: dict[str, str]) -> None:
    """In content, order and comparison, from either side."""
    tags = Tags(one)
    assert list(tags.items()) == list(one.items())
    assert (tags == other, other == tags, tags == Tags(other)) == (one == other,) * 3
    assert {**tags, "x": "y"} == {**one, "x": "y"}
    assert all(tags[name] == one[name] for name in one)
    assert repr(tags) == repr(one)


def test_a_name_that_is_not_there_is_told() -> None:
    """As a dictionary does."""
    tags = Tags({"a": "b"})
    assert (tags.get("b"), "b" in tags, len(tags)) == (None, False, 1)
    with pytest.raises(KeyError):
        tags["b"]


def test_what_many_have_in_common_is_there_once() -> None:
    """Names and values."""
    one, other = (Tags(json.loads('{"name": "value"}')) for _ in range(2))
    assert one._names is other._names
    assert one["name"] is other["name"]
