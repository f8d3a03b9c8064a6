"""The version history: when a secret has too many versions or has changed too often."""

from __future__ import annotations

import pytest

from keysync.sync.plan import too_many_versions, version_warning
from keysync.targets.interface import History


@pytest.mark.parametrize(("versions", "needs_accept"), [(449, False), (450, True), (501, True)])
def test_a_secret_near_500_versions_needs_accept(versions: int, needs_accept: bool) -> None:
    """At 450 versions a write needs `--accept`; the reason has the number."""
    reason = too_many_versions(History(versions), None)
    assert (reason is not None) == needs_accept
    assert not needs_accept or f"{versions} versions" in (reason or "")


@pytest.mark.parametrize(("versions", "warns"), [(0, False), (299, False), (300, True), (449, True)])
def test_many_versions_give_a_warning(versions: int, warns: bool) -> None:
    """From 300 versions on, a warning has the number."""
    warning = version_warning(History(versions))
    assert (warning is not None) == warns
    assert (f"{versions} versions" in (warning or "")) == warns


@pytest.mark.parametrize(
    ("today", "limit", "needs_accept"),
    [(0, 1, False), (1, 1, True), (2, 3, False), (3, 3, True), (99, None, False)],
    ids=["none", "one", "two of three", "three of three", "no limit"],
)
def test_changes_of_the_last_24_hours_are_counted(today: int, limit: int | None, needs_accept: bool) -> None:
    """After as many changes in 24 hours as the limit, the next one needs `--accept`."""
    reason = too_many_versions(History(99, today), limit)
    assert (reason is not None) == needs_accept
    assert not needs_accept or f"limits.changes_per_day is {limit}" in (reason or "")


def test_without_a_history_no_accept_is_needed() -> None:
    """An identity that may not list versions still keeps keys in sync, without warnings."""
    assert too_many_versions(None, 0) is None
    assert version_warning(None) is None
