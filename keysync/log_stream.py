"""Writes the log to stderr without blocking. If no process reads stderr, keysync goes on and drops lines."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

MAX_BUFFERED_BYTES: Final = 1 << 20
_FLUSH_SECONDS: Final = 5.0
_GATHER_SECONDS: Final = 0.005
"""How long the first line of a burst waits for others. Waking the thread for each line takes half of the CPU time of logging it."""


class LogStream:
    """Writes lines to a copy of the descriptor `fd` from a thread of its own, so that `write` never blocks.

    A line is dropped if the buffer would exceed `most_bytes`, or if writing it fails. Once lines can be written again and at
    most half of the buffer is in use, that thread calls `dropped` with the number of dropped lines.
    """

    def __init__(self, fd: int, dropped: Callable[[int], None], *, most_bytes: int = MAX_BUFFERED_BYTES) -> None:
        self._fd = os.dup(fd)
        self._on_dropped = dropped
        self._most_bytes = most_bytes
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._written = 0
        self._reported = 0
        self._closed = False
        self._changed = threading.Condition()
        self.dropped = 0
        """Number of lines dropped so far."""
        threading.Thread(target=self._write_lines, name="log", daemon=True).start()

    def write(self, text: str) -> None:
        """Adds one line, which includes its line end, to the buffer."""
        line = text.encode(errors="replace")
        with self._changed:
            if self._closed or (self._lines and self._bytes + len(line) > self._most_bytes):
                self.dropped += 1
                return
            self._lines.append(line)
            self._bytes += len(line)
            if len(self._lines) == 1:
                self._changed.notify_all()

    def drain(self, seconds: float = _FLUSH_SECONDS) -> bool:
        """Waits until the buffer is empty; False if no line was written for `seconds`."""
        with self._changed:
            while self._lines:
                before = self._written
                if not self._changed.wait_for(lambda: self._written != before, seconds):  # noqa: B023  # called within this iteration
                    return False
        return True

    def close(self) -> None:
        """Accepts no more lines. The lines in the buffer are still written."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _write_lines(self) -> None:
        """Writes lines until the stream is closed and empty. A line stays in the buffer until it is written."""
        while True:
            if not self._lines:  # only this thread removes lines
                with self._changed:
                    self._changed.wait_for(lambda: self._lines or self._closed)
                time.sleep(_GATHER_SECONDS)
            with self._changed:
                if not self._lines:
                    break
                line = self._lines[0]
            done = self._write(line)
            with self._changed:
                self._lines.popleft()
                self._bytes -= len(line)
                self._written += 1
                self.dropped += not done
                unreported = self.dropped - self._reported if done and self._bytes <= self._most_bytes // 2 else 0
                self._reported += unreported
                self._changed.notify_all()
            if unreported:
                self._on_dropped(unreported)
        os.close(self._fd)

    def _write(self, line: bytes) -> bool:
        """Writes `line`, however long the reader takes; whether it was written in full."""
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                # Another process that shares the open file has made it non-blocking.
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()
            except OSError:
                return False
        return True


_current: LogStream | None = None


def set_current(stream: LogStream | None) -> None:
    """Makes `stream` the log of this process and closes the previous one."""
    global _current  # noqa: PLW0603  # a process has one stderr
    if _current is not None:
        _current.close()
    _current = stream


def flush() -> bool:
    """Waits until the log is written; False if stderr is not read, so that a direct write to it would block."""
    return _current is None or _current.drain()


def dropped() -> int:
    """Number of log lines dropped so far."""
    return 0 if _current is None else _current.dropped
