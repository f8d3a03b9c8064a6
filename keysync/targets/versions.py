"""How many versions a secret has: counted in a tag of the latest version, or by listing all versions.

Ages are differences between times of one service: the clock of this machine may be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from keysync.targets.interface import LONG_AGO, MAX_TAGS, History, SecretProperties, StoredSecret
from keysync.targets.recent_writes import STALE_READ_SECONDS

COUNT_TAG: Final = "keysync-versions"
"""Three parts: how many versions there are, how many of these followed one another within a day, and when this one was written.

For example `12 3 2026-11-28T17:03:30Z`.
"""

_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_DAY: Final = timedelta(days=1)
# Another tool may copy the tags to a version of its own. Only the version that was created at the time in its tag is counted.
_CREATED_BEFORE: Final = timedelta(seconds=2)
_CREATED_AFTER: Final = timedelta(seconds=5)
# A copy within those seconds is not noticed, so the versions are listed from time to time.
_LIST_EVERY: Final = 25


def history_of(listed: Sequence[SecretProperties], answered: datetime) -> History:
    """The history that a listing shows. `answered` is the service's time of the reply."""
    return History(len(listed), sum(1 for each in listed if answered - each.created < _DAY))


def counted_history(stored: StoredSecret, now: datetime | None) -> History | None:
    """The history according to the tag of `stored`; None if it has to be listed. `now` is the service's time.

    The number for the last 24 hours is an upper bound.
    """
    try:
        versions, chain, written = stored.tags.get(COUNT_TAG, "").split()
        history, at = History(int(versions), int(chain)), datetime.strptime(written, _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    if now is None or stored.created is None or not -_CREATED_BEFORE <= stored.created - at <= _CREATED_AFTER:
        return None
    if history.versions < 1 or history.today < 1 or history.versions % _LIST_EVERY == 0:
        return None
    return history if now - stored.created < _DAY else History(history.versions)


def with_count(tags: Mapping[str, str], history: History | None, now: datetime | None) -> dict[str, str]:
    """`tags` for a version that follows `history`. Without the count if it is unknown, or if there is no room for it."""
    others = {name: value for name, value in tags.items() if name != COUNT_TAG}
    if history is None or now is None or len(others) >= MAX_TAGS:
        return others
    return {**others, COUNT_TAG: f"{history.versions + 1} {history.today + 1} {now:{_TIME}}"}


def versions_after(
    listed: Sequence[SecretProperties], before: str | None, answered: datetime
) -> list[tuple[SecretProperties, bool]]:
    """Versions that are not older than `before`, and whether each is later. If `before` is None, all versions are later.

    Only versions that are so new that a read may not show them yet.
    """
    if before is None:
        return [(item, True) for item in listed]
    at = next((item.created for item in listed if item.version == before), LONG_AGO)
    since = max(at, answered - timedelta(seconds=STALE_READ_SECONDS))
    recent = [item for item in listed if item.version != before and item.created >= since]
    return [(item, item.created > at) for item in recent]
