"""What a secret carries beside its value: what is not ours is kept, what is ours cannot be changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keysync.sync.metadata import changed_fields, desired_metadata
from keysync.sync.model import Item
from keysync.sync.ownership import KEY, KEYSYNC, MANAGED_BY, OWN, OWNER, SOURCE, own_tags
from keysync.targets.interface import StoredSecret
from tests.support.looks import item, ours, stored

NOW = datetime(2026, 11, 24, 5, 22, 33, 500_000, tzinfo=UTC)
QUARTER = timedelta(days=90)


def wanted(one: Item, found: StoredSecret | None, *, new_version: bool = False) -> Any:
    return desired_metadata(one, found, NOW, new_version=new_version)


@pytest.mark.parametrize("new_version", [False, True])
def test_tags_of_others_are_carried(new_version: bool) -> None:
    """A tag that somebody added stays, the configuration's are added, and its value wins where both name one."""
    found = stored("gone", {"cost": "7", "env": "old"})
    tags = wanted(item(tags={"env": "prod"}), found, new_version=new_version).tags
    assert tags == {"cost": "7", "env": "prod", **own_tags(item())}


def test_the_users_tags_cannot_override_ours() -> None:
    """Whatever the configuration's tags say, the mark that tells whose a secret is stays true."""
    lies = {MANAGED_BY: "me", SOURCE: "elsewhere", KEY: "secondary", OWNER: "thief"}
    assert wanted(item(tags=lies, owner="mine"), None).tags == own_tags(item(owner="mine"))


def test_marks_of_another_owner_are_dropped() -> None:
    """A secret that was another installation's keeps none of its marks once it is ours."""
    found = stored("gone", {MANAGED_BY: KEYSYNC, SOURCE: "elsewhere", KEY: "secondary", OWNER: "them", "cost": "7"})
    assert wanted(item(), found).tags == {"cost": "7", **own_tags(item())}


@pytest.mark.parametrize(
    ("configured", "there", "content_type"),
    [
        (None, stored("gone"), None),
        (None, stored("gone", content_type="text/x"), "text/x"),
        ("text/y", stored("gone", content_type="text/x"), "text/y"),
        ("text/y", None, "text/y"),
        (None, None, "text/plain; azure-batch-account-key"),
    ],
    ids=["none kept", "kept", "set", "set on a new one", "default on a new one"],
)
def test_the_content_type_is_the_configurations_or_stays(
    configured: str | None, there: StoredSecret | None, content_type: str | None
) -> None:
    """A configured type wins, what is there is kept, and a new secret says what it is."""
    assert wanted(item(content_type=configured), there).content_type == content_type


@pytest.mark.parametrize("new_version", [False, True])
@pytest.mark.parametrize("there", [None, NOW + timedelta(days=1)])
def test_an_expiry_that_nobody_configured_is_kept(there: datetime | None, new_version: bool) -> None:
    """An expiry that somebody set, or none, stays as it is."""
    assert wanted(item(), ours("gone", expires=there), new_version=new_version).expires == there


def test_a_new_value_is_not_born_expired() -> None:
    """An expiry that is over is left on the version that has it, and not carried to the next."""
    for past in (NOW, NOW - timedelta(days=1)):
        found = ours("gone", expires=past)
        assert wanted(item(), found, new_version=True).expires is None
        assert wanted(item(), found).expires == past


@pytest.mark.parametrize(
    ("left", "renewed"),
    [
        (None, True),
        (QUARTER, False),
        (QUARTER / 2 + timedelta(seconds=1), False),
        (QUARTER / 2, True),
        (timedelta(0), True),
        (timedelta(days=-1), True),
        (QUARTER + timedelta(seconds=1), True),
    ],
    ids=["unset", "whole", "over half", "half", "now", "expired", "too long"],
)
def test_a_configured_expiry_is_renewed_at_half_time(left: timedelta | None, renewed: bool) -> None:
    """It is set where there is none, renewed once half is over, and shortened where it is further than configured."""
    there = NOW + left if left is not None else None
    found = wanted(item(expires_after=QUARTER), ours("primary", expires=there)).expires
    assert found == ((NOW + QUARTER).replace(microsecond=0) if renewed else there)


def test_a_new_version_has_the_whole_configured_time() -> None:
    """A new value does not inherit what was left to the old one."""
    found = ours("gone", expires=NOW + QUARTER - timedelta(days=1))
    assert wanted(item(expires_after=QUARTER), found, new_version=True).expires == (NOW + QUARTER).replace(
        microsecond=0
    )


def test_each_field_that_differs_is_named() -> None:
    """Tags, content type and expiry are told apart, and what is equal is not named."""
    found = stored("gone", {"a": "1"}, content_type="x", expires=NOW)
    same = wanted(item(), found)
    assert changed_fields(found, same) == {"tags"}
    everything = wanted(item(content_type="y", expires_after=QUARTER), found)
    assert changed_fields(found, everything) == {"tags", "content_type", "expires"}


TAGS = st.dictionaries(st.sampled_from([*sorted(OWN), "cost", "env", "team"]), st.sampled_from(["", "a", KEYSYNC]))
TYPES = st.none() | st.sampled_from(["text/x", "text/y"])
MINUTES = st.integers(-200_000, 200_000).map(lambda minutes: timedelta(minutes=minutes))
EXISTING = st.builds(
    lambda tags, content_type, left: stored(
        "gone", tags, content_type=content_type, expires=None if left is None else NOW.replace(microsecond=0) + left
    ),
    TAGS,
    TYPES,
    st.none() | MINUTES,
)
ITEMS = st.builds(
    lambda tags, content_type, after, owner: item(
        tags=tags, content_type=content_type, expires_after=after, owner=owner
    ),
    TAGS,
    TYPES,
    st.none() | st.integers(1, 200_000).map(lambda minutes: timedelta(minutes=minutes)),
    st.none() | st.just("mine"),
)


@given(ITEMS, EXISTING, st.booleans())
@settings(max_examples=200)
def test_what_was_set_once_is_not_set_again(one: Item, found: StoredSecret, new_version: bool) -> None:
    """Metadata that a run has just written needs nothing more at the same moment."""
    first = wanted(one, found, new_version=new_version)
    after = replace(found, tags=first.tags, content_type=first.content_type, expires=first.expires)
    assert changed_fields(after, wanted(one, after)) == frozenset()


@given(ITEMS, EXISTING, st.booleans())
@settings(max_examples=100)
def test_tags_are_ours_the_users_and_everybody_elses(one: Item, found: StoredSecret, new_version: bool) -> None:
    """Of the names that are keysync's exactly its own stand there; no other tag of a secret is ever lost."""
    tags = wanted(one, found, new_version=new_version).tags
    assert {name: value for name, value in tags.items() if name in OWN} == own_tags(one)
    others = (found.tags.keys() | one.policy.tags.keys()) - OWN
    assert {name: tags[name] for name in others} == {
        name: one.policy.tags.get(name, found.tags.get(name)) for name in others
    }
