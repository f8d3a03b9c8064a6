"""The progress bar of a run on a terminal."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from keysync.sync.model import Report, Result

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class ProgressBar(AbstractContextManager["ProgressBar"]):
    """A bar on stderr that counts accounts: a `RunObserver`. Shows nothing if stderr is not a terminal."""

    def __init__(self) -> None:
        self._bar = _bar() if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar[0].stop()

    def started(self, run_id: str, work_items: int) -> None:  # noqa: ARG002  # the observer's signature
        """Sets the length of the bar."""
        if self._bar:
            progress, task = self._bar
            progress.update(task, total=work_items)

    def collected(self, run_id: str, account: str) -> None:  # noqa: ARG002  # as above
        """Advances by one account."""
        if self._bar:
            progress, task = self._bar
            progress.advance(task)

    def result(self, run_id: str, result: Result) -> None:
        """No-op: the report shows results."""

    def finished(self, report: Report) -> None:
        """No-op: leaving the block removes the bar."""


def _bar() -> tuple[Progress, TaskID]:
    from rich.console import Console  # noqa: PLC0415  # not needed without a terminal
    from rich.progress import (  # noqa: PLC0415  # as above
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (TextColumn("accounts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    return progress, progress.add_task("accounts", total=None)
