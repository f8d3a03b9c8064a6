"""The metadata of a secret: other tools' tags are kept, and keysync's cannot be changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keysync.sync.model import Item
from keysync.sync.ownership import KEY, KEYSYNC, MANAGED_BY, OWN, OWNER, SOURCE, own_tags
from keysync.sync.plan import changed_fields, desired_metadata
from keysync.targets.interface import StoredSecret
from tests.support.observations import item, ours, stored

NOW = datetime(2026, 11, 24, 5, 22, 33, 500_000, tzinfo=UTC)
QUARTER = timedelta(days=90)


def desired(one: Item, current: StoredSecret | None, *, new_version: bool = False) -> Any:
    return desired_metadata(one, current, NOW, new_version=new_version)


@pytest.mark.parametrize("new_version", [False, True])
def test_tags_of_others_are_kept(new_version: bool) -> None:
    """Other tags are kept, configured tags are added, and the configured value wins."""
    current = stored("gone", {"cost": "7", "env": "old"})
    tags = desired(item(tags={"env": "prod"}), current, new_version=new_version).tags
    assert tags == {"cost": "7", "env": "prod", **own_tags(item())}


def test_configured_tags_cannot_override_keysyncs() -> None:
    """Configured tags cannot replace the tags that say who manages the secret."""
    forged = {MANAGED_BY: "me", SOURCE: "elsewhere", KEY: "secondary", OWNER: "thief"}
    assert desired(item(tags=forged, owner="mine"), None).tags == own_tags(item(owner="mine"))


def test_tags_of_another_owner_are_dropped() -> None:
    """An adopted secret keeps none of the tags of the installation that managed it before."""
    current = stored("gone", {MANAGED_BY: KEYSYNC, SOURCE: "elsewhere", KEY: "secondary", OWNER: "them", "cost": "7"})
    assert desired(item(), current).tags == {"cost": "7", **own_tags(item())}


@pytest.mark.parametrize(
    ("configured", "existing", "content_type"),
    [
        (None, stored("gone"), None),
        (None, stored("gone", content_type="text/x"), "text/x"),
        ("text/y", stored("gone", content_type="text/x"), "text/y"),
        ("text/y", None, "text/y"),
        (None, None, "text/z"),
    ],
    ids=["none kept", "kept", "set", "set on a new one", "default on a new one"],
)
def test_the_content_type_is_configured_or_kept(
    configured: str | None, existing: StoredSecret | None, content_type: str | None
) -> None:
    """A configured type wins, another is kept, and a new secret has that of its source."""
    assert desired(item(content_type=configured, new_content_type="text/z"), existing).content_type == content_type


@pytest.mark.parametrize("new_version", [False, True])
@pytest.mark.parametrize("existing", [None, NOW + timedelta(days=1)])
def test_an_expiry_is_kept_without_configuration(existing: datetime | None, new_version: bool) -> None:
    """An expiry set by another tool, or none, does not change."""
    assert desired(item(), ours("gone", expires=existing), new_version=new_version).expires == existing


def test_a_new_value_is_not_expired() -> None:
    """An expiry in the past is kept on its version, and not copied to the next."""
    for past in (NOW, NOW - timedelta(days=1)):
        current = ours("gone", expires=past)
        assert desired(item(), current, new_version=True).expires is None
        assert desired(item(), current).expires == past


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
    """It is set if missing, renewed after half of the time, and shortened if it is later than configured."""
    existing = NOW + left if left is not None else None
    current = desired(item(expires_after=QUARTER), ours("primary", expires=existing)).expires
    assert current == ((NOW + QUARTER).replace(microsecond=0) if renewed else existing)


def test_a_new_version_has_the_whole_configured_time() -> None:
    """A new value does not inherit the remaining time of the old one."""
    current = ours("gone", expires=NOW + QUARTER - timedelta(days=1))
    assert desired(item(expires_after=QUARTER), current, new_version=True).expires == (NOW + QUARTER).replace(
        microsecond=0
    )


def test_each_different_field_is_named() -> None:
    """Tags, content type and expiry are named separately, and equal fields are not named."""
    current = stored("gone", {"a": "1"}, content_type="x", expires=NOW)
    same = desired(item(), current)
    assert changed_fields(current, same) == {"tags"}
    everything = desired(item(content_type="y", expires_after=QUARTER), current)
    assert changed_fields(current, everything) == {"tags", "content_type", "expires"}


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
def test_written_metadata_needs_no_change(one: Item, current: StoredSecret, new_version: bool) -> None:
    """Metadata that a run has just written needs no change at the same time."""
    first = desired(one, current, new_version=new_version)
    after = replace(current, tags=first.tags, content_type=first.content_type, expires=first.expires)
    assert changed_fields(after, desired(one, after)) == frozenset()


@given(ITEMS, EXISTING, st.booleans())
@settings(max_examples=100)
def test_all_other_tags_are_kept(one: Item, current: StoredSecret, new_version: bool) -> None:
    """A secret has exactly keysync's own tags of these names, and no other tag is ever lost."""
    tags = desired(one, current, new_version=new_version).tags
    assert {name: value for name, value in tags.items() if name in OWN} == own_tags(one)
    others = (current.tags.keys() | one.policy.tags.keys()) - OWN
    assert {name: tags[name] for name in others} == {
        name: one.policy.tags.get(name, current.tags.get(name)) for name in others
    }
