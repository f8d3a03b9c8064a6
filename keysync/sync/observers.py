"""Observers of a run: the interface, and several as one."""

from __future__ import annotations

from collections.abc import Sequence

from keysync.sync.model import Report, Result


class RunObserver:
    """Is called while a run proceeds. A subclass overrides what it needs."""

    def started(self, run_id: str, work_items: int) -> None:
        """A run starts."""

    def collected(self, run_id: str, account: str) -> None:
        """An account has responded."""

    def result(self, run_id: str, result: Result) -> None:
        """An item has a final result. Called once per item, in no particular order."""

    def finished(self, report: Report) -> None:
        """The run is finished."""


class Observers(RunObserver):
    """Calls several observers, in order."""

    def __init__(self, observers: Sequence[RunObserver]) -> None:
        self._observers = tuple(observers)

    def started(self, run_id: str, work_items: int) -> None:
        for observer in self._observers:
            observer.started(run_id, work_items)

    def collected(self, run_id: str, account: str) -> None:
        for observer in self._observers:
            observer.collected(run_id, account)

    def result(self, run_id: str, result: Result) -> None:
        for observer in self._observers:
            observer.result(run_id, result)

    def finished(self, report: Report) -> None:
        for observer in self._observers:
            observer.finished(report)
