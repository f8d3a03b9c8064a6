"""Counts of versions that this process knows, so that it need not list the versions of a secret each time.

Ages are differences between times of one service, counted on by this process's monotonic clock: the wall clock of this
machine may be wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from keysync.names import fold
from keysync.targets.interface import History
from keysync.targets.recent_writes import STALE_READ_SECONDS

DAY_SECONDS: Final = 86_400.0
LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands for an unknown time of creation."""


@dataclass(frozen=True, slots=True)
class _Known:
    latest: str
    count: int
    created: tuple[float, ...]
    listed: float | None

    def history(self, now: float) -> History:
        return History(self.count, sum(1 for at in self.created if now - at < DAY_SECONDS))


@dataclass(slots=True)
class Versions:
    """Histories by secret. A history is valid while its last version is the latest. `clock` returns monotonic seconds."""

    clock: Callable[[], float] = time.monotonic
    _known: dict[str, _Known] = field(default_factory=dict[str, _Known])

    def of(self, name: str, latest: str) -> History | None:
        """The history of `name`; None if `latest` is not its last version."""
        known = self._known.get(fold(name))
        return known.history(self.clock()) if known is not None and known.latest == latest else None

    def listed_since(self, name: str, latest: str | None, at: float) -> bool:
        """Whether a listing since the monotonic time `at` showed `latest` as the latest version."""
        known = self._known.get(fold(name))
        return known is not None and known.latest == latest and known.listed is not None and known.listed >= at

    def learn(
        self, name: str, latest: str, created: Sequence[datetime], answered: datetime, *, proven: bool = True
    ) -> History:
        """Records a listing of all versions. `answered` is the service's time of the reply.

        Without `proven`, the listing does not prove that `latest` is the latest version.
        """
        now = self.clock()
        times = (now - (answered - at).total_seconds() for at in created)
        known = _Known(
            latest, len(created), tuple(at for at in times if now - at < DAY_SECONDS), now if proven else None
        )
        self._known[fold(name)] = known
        return known.history(now)

    def add(self, name: str, before: str | None, version: str) -> None:
        """Records that version `version` follows `before`; None for a secret that did not exist."""
        known, now = self._known.pop(fold(name), None), self.clock()
        if before is None:
            known = _Known("", 0, (), None)
        elif known is None or known.latest != before:
            return
        recent = tuple(at for at in known.created if now - at < DAY_SECONDS)
        self._known[fold(name)] = _Known(version, known.count + 1, (*recent, now), None)


def _recent(listed: Sequence[Any], before: str | None, answered: datetime) -> list[Any]:
    """The versions other than `before` that are so new that a read may not show them yet."""
    since = answered - timedelta(seconds=STALE_READ_SECONDS)
    return [item for item in listed if item.version != before and creation_time(item.created_on) > since]


def _created_at(listed: Sequence[Any], version: str | None) -> datetime:
    return next((creation_time(item.created_on) for item in listed if item.version == version), LONG_AGO)


def versions_after(listed: Sequence[Any], before: str | None, answered: datetime) -> list[tuple[Any, bool]]:
    """Versions that are not older than `before`, and whether each is later. If `before` is None, all versions are later."""
    if before is None:
        return [(item, True) for item in listed]
    at = _created_at(listed, before)
    recent = _recent(listed, before, answered)
    return [(item, creation_time(item.created_on) > at) for item in recent if creation_time(item.created_on) >= at]


def creation_time(moment: datetime | None) -> datetime:
    return moment or LONG_AGO
