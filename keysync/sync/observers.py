"""Observers of a run put together."""

from __future__ import annotations

from collections.abc import Sequence

from keysync.sync.model import Report, Result
from keysync.sync.run import RunObserver


class Observers:
    """Tells each observer, in order."""

    def __init__(self, observers: Sequence[RunObserver]) -> None:
        self._observers = tuple(observers)

    def started(self, run_id: str, scopes: int) -> None:
        """A run begins."""
        for observer in self._observers:
            observer.started(run_id, scopes)

    def collected(self, run_id: str, account: str) -> None:
        """An account has answered."""
        for observer in self._observers:
            observer.collected(run_id, account)

    def result(self, run_id: str, result: Result) -> None:
        """An item has its result."""
        for observer in self._observers:
            observer.result(run_id, result)

    def finished(self, report: Report) -> None:
        """The run has ended."""
        for observer in self._observers:
            observer.finished(report)
