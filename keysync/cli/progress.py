"""Observers of a pass put together, and its progress on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from keysync.sync.model import Report, Result
from keysync.sync.run import PassObserver


class Observers:
    """Tells each observer, in order."""

    def __init__(self, observers: Sequence[PassObserver]) -> None:
        self._observers = tuple(observers)

    def started(self, run_id: str, scopes: int) -> None:
        """A pass begins."""
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
        """The pass has ended."""
        for observer in self._observers:
            observer.finished(report)


class ProgressBar(AbstractContextManager["ProgressBar"]):
    """A bar on stderr that counts accounts; nothing at all where stderr is no terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("accounts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("accounts", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def started(self, run_id: str, scopes: int) -> None:  # noqa: ARG002  # the observer's signature
        """The bar learns its length."""
        self._progress.update(self._task, total=scopes)

    def collected(self, run_id: str, account: str) -> None:  # noqa: ARG002
        """One account further."""
        self._progress.advance(self._task)

    def result(self, run_id: str, result: Result) -> None:
        """Results are the report's affair."""

    def finished(self, report: Report) -> None:
        """The bar goes away with the block."""
