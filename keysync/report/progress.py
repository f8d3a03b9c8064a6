"""The progress bar of a run on a terminal."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from keysync.sync.observers import RunObserver

if TYPE_CHECKING:
    from rich.progress import Progress


class ProgressBar(RunObserver, AbstractContextManager["ProgressBar"]):
    """A bar on stderr that counts accounts. Shows nothing if stderr is not a terminal."""

    def __init__(self) -> None:
        self._progress = _progress() if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()

    def started(self, run_id: str, work_items: int) -> None:  # noqa: ARG002  # the observer's signature
        """Sets the length of the bar."""
        if self._progress:
            self._progress.update(self._progress.task_ids[0], total=work_items)

    def collected(self, run_id: str, account: str) -> None:  # noqa: ARG002  # as above
        """Advances by one account."""
        if self._progress:
            self._progress.advance(self._progress.task_ids[0])


def _progress() -> Progress:
    from rich.console import Console  # noqa: PLC0415  # not needed without a terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("accounts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    progress.add_task("accounts", total=None)
    return progress
