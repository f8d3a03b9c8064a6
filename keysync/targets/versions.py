"""How often this process knows a secret to have changed, so that a write need not list all versions each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from keysync.config.forms import fold
from keysync.targets.interface import History

_DAY = timedelta(days=1)


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Versions:
    """Histories by secret, each good for as long as the version that it ends with is still the latest."""

    now: Callable[[], datetime] = _utc_now
    _known: dict[str, tuple[str, History]] = field(default_factory=dict)

    def of(self, name: str, latest: str) -> History | None:
        """The history of `name`, or None where `latest` is not the version that it ends with."""
        version, history = self._known.get(fold(name), (None, None))
        return self._trimmed(history) if history is not None and version == latest else None

    def learn(self, name: str, latest: str, created: Sequence[datetime]) -> History:
        """Keeps what a listing of all versions has shown."""
        history = self._trimmed(History(len(created), tuple(created)))
        self._known[fold(name)] = (latest, history)
        return history

    def add(self, name: str, before: str | None, made: str) -> None:
        """Version `made` now follows `before`, which is None for a secret that did not exist."""
        known = History(0) if before is None else self.of(name, before)
        if known is None:
            self._known.pop(fold(name), None)
        else:
            self._known[fold(name)] = (made, History(known.versions + 1, (*known.recent, self.now())))

    def _trimmed(self, history: History) -> History:
        since = self.now() - _DAY
        return History(history.versions, tuple(each for each in history.recent if each > since))
