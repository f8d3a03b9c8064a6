"""The interface of an observer of runs."""

from __future__ import annotations

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
