"""How often this process knows a secret to have changed, so that a comparison need not list all versions each time.

Ages are differences between times of one service, kept by this process's monotonic clock: the wall clock of this machine
may be off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from keysync.names import fold
from keysync.targets.interface import History

DAY_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class _Known:
    latest: str
    count: int
    made: tuple[float, ...]
    listed: float | None

    def history(self, now: float) -> History:
        return History(self.count, sum(1 for each in self.made if now - each < DAY_SECONDS))


@dataclass(slots=True)
class Versions:
    """Histories by secret, each valid while the version that it ends with is the latest. `clock` is in monotonic seconds."""

    clock: Callable[[], float] = time.monotonic
    _known: dict[str, _Known] = field(default_factory=dict)

    def of(self, name: str, latest: str) -> History | None:
        """The history of `name`, or None where `latest` is not the version that it ends with."""
        known = self._known.get(fold(name))
        return known.history(self.clock()) if known is not None and known.latest == latest else None

    def listed_since(self, name: str, latest: str | None, at: float) -> bool:
        """Whether a listing since the monotonic time `at` showed `latest` as the latest version."""
        known = self._known.get(fold(name))
        return known is not None and known.latest == latest and known.listed is not None and known.listed >= at

    def learn(
        self, name: str, latest: str, created: Sequence[datetime], answered: datetime, *, proven: bool = True
    ) -> History:
        """Keeps what a listing of all versions has shown; `answered` is the service's time at the reply.

        Without `proven` the listing leaves open whether `latest` is the latest version.
        """
        now = self.clock()
        made = (now - (answered - each).total_seconds() for each in created)
        known = _Known(
            latest, len(created), tuple(each for each in made if now - each < DAY_SECONDS), now if proven else None
        )
        self._known[fold(name)] = known
        return known.history(now)

    def add(self, name: str, before: str | None, made: str) -> None:
        """Version `made` now follows `before`, which is None for a secret that did not exist."""
        known, now = self._known.pop(fold(name), None), self.clock()
        if before is None:
            known = _Known("", 0, (), None)
        elif known is None or known.latest != before:
            return
        recent = tuple(each for each in known.made if now - each < DAY_SECONDS)
        self._known[fold(name)] = _Known(made, known.count + 1, (*recent, now), None)
