"""The result's way out: a reader that has gone, or a full disk, must not undo what a command has done."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STDOUT = 1


class _Outlet(io.FileIO):
    """File descriptor 1. What cannot be written is dropped, and why is kept in `failure`, so that a run goes on to its end."""

    failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Takes all of `data`, also where it goes nowhere."""
        size = memoryview(data).nbytes
        if self.failure is not None:
            return size
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            return size


def guard_stdout() -> None:
    """A closed stream, or one that cannot write every character, must not turn a run that was done into an error."""
    told = sys.stdout is not None
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # open for as long as the process
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # open for as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if told and type(sys.stdout) is io.TextIOWrapper and sys.stdout.fileno() == _STDOUT:
        old = sys.stdout
        raw = io.BufferedWriter(_Outlet(_STDOUT, "w", closefd=False))
        sys.stdout = io.TextIOWrapper(raw, old.encoding, "replace", line_buffering=old.line_buffering)


def reader_is_gone() -> bool:
    """Whether stdout is a pipe that nobody reads any more, or a terminal that was closed, as far as writing has shown."""
    return _is_gone(_failure())


def settled(code: int) -> tuple[int, str | None]:
    """The exit code of a command that wanted to end with `code`, and what is to be told where its result is not whole.

    A reader that has gone has what it wanted: the code stays. Where the result could not be stored, 0 and 3 become 1.
    """
    sys.stdout.flush()
    failure = _failure()
    if failure is None or _is_gone(failure):
        return code, None
    told = f"the result could not be written to stdout: {failure.strerror}"
    return (1 if code in (0, 3) else code), told


def _is_gone(failure: OSError | None) -> bool:
    # EIO is what a terminal says whose other end has gone, and a disk that is broken.
    return isinstance(failure, BrokenPipeError) or (
        failure is not None and failure.errno == errno.EIO and stat.S_ISCHR(os.fstat(_STDOUT).st_mode)
    )


def _failure() -> OSError | None:
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Outlet) else None
