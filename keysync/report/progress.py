"""The progress bar of a run on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from keysync.sync.observers import RunObserver

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@contextmanager
def progress_bar() -> Generator[RunObserver]:
    """A bar on stderr that counts accounts. Shows nothing if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield RunObserver()
        return
    from rich.console import Console  # noqa: PLC0415  # not needed without a terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("accounts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bar(progress, progress.add_task("accounts", total=None))


class _Bar(RunObserver):
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def started(self, run_id: str, work_items: int) -> None:  # noqa: ARG002  # the observer's signature
        self._progress.update(self._task, total=work_items)

    def collected(self, run_id: str, account: str) -> None:  # noqa: ARG002  # as above
        self._progress.advance(self._task)
