"""A stdout whose errors do not interrupt a command: a closed pipe or a full disk must not stop a run halfway."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from keysync.report.console import Console

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STDOUT = 1


class _Stdout(io.FileIO):
    """File descriptor 1. After the first error, kept in `failure`, it drops all output, so that the run goes on."""

    failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Accepts all of `data`, and drops it after a failure."""
        if self.failure is None:
            try:
                return super().write(data)
            except OSError as error:
                self.failure = error
        return memoryview(data).nbytes


def guard_stdout() -> None:
    """Replaces stdout, so that neither a closed stream nor an unsupported character turns a finished run into an error."""
    old = sys.stdout
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # open until the process ends
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if type(old) is io.TextIOWrapper and old.fileno() == _STDOUT:
        raw = io.BufferedWriter(_Stdout(_STDOUT, "w", closefd=False))
        sys.stdout = io.TextIOWrapper(raw, old.encoding, "replace", line_buffering=old.line_buffering)


def _failure() -> OSError | None:
    """The first error of a write to stdout."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Stdout) else None


def reader_is_gone() -> bool:
    """Whether a write has shown that stdout is a closed pipe or a closed terminal."""
    failure = _failure()
    # EIO means a terminal that was closed, or a broken disk.
    closed = failure is not None and failure.errno == errno.EIO and stat.S_ISCHR(os.fstat(_STDOUT).st_mode)
    return closed or isinstance(failure, BrokenPipeError)


def final_code(code: int) -> tuple[int, str | None]:
    """The exit code for a command that ends with `code`, and a message if its result could not be written.

    If the reader has closed the pipe, the code stays. If the disk is full, 0 and 3 become 1.
    """
    sys.stdout.flush()
    failure = _failure()
    if failure is None or reader_is_gone():
        return code, None
    return (1 if code in (0, 3) else code), f"the result could not be written to stdout: {failure.strerror}"


def console_for(stream: TextIO) -> Console:
    """The console of `stream`, with styles if it is a terminal or FORCE_COLOR is set. Rich respects NO_COLOR."""
    return Console(stream, is_terminal=stream.isatty() or bool(os.environ.get("FORCE_COLOR")))
