"""Writes the log to stderr without blocking: a stderr that is not read must not stop the process."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

MOST_BYTES: Final = 1 << 20
_FLUSH_SECONDS: Final = 5.0


class LogStream:
    """Writes lines to a copy of the descriptor `fd`, from a thread of its own; `write` never waits.

    Lines beyond `most_bytes` that wait are dropped and counted, and so is a line that cannot be written. `dropped` is called
    with their number, from that thread, once lines are written again and at most half of the buffer is in use.
    """

    def __init__(self, fd: int, dropped: Callable[[int], None], *, most_bytes: int = MOST_BYTES) -> None:
        self._fd = os.dup(fd)
        self._on_dropped = dropped
        self._most_bytes = most_bytes
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._written = 0
        self._unreported = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.dropped = 0
        """How many lines were dropped so far."""

    def write(self, text: str) -> None:
        """Takes one line, with its end."""
        line = text.encode(errors="replace")
        with self._changed:
            if self._closed or (self._lines and self._bytes + len(line) > self._most_bytes):
                self._drop()
                return
            self._lines.append(line)
            self._bytes += len(line)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()

    def drain(self, seconds: float = _FLUSH_SECONDS) -> bool:
        """Waits until all is written; False where nothing was for `seconds`."""
        with self._changed:
            while self._lines:
                before = self._written
                if not self._changed.wait_for(lambda: self._written != before, seconds):  # noqa: B023  # called at once
                    return False
        return True

    def close(self) -> None:
        """Takes no more lines; those that wait are still written."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._thread is None:
                os.close(self._fd)

    def _drop(self) -> None:
        self.dropped += 1
        self._unreported += 1

    def _run(self) -> None:
        while (line := self._next()) is not None:
            done = self._put(line)
            unreported = self._settle(line, done=done)
            if unreported:
                self._on_dropped(unreported)
        os.close(self._fd)

    def _next(self) -> bytes | None:
        """The oldest line, which stays in the buffer; None once the stream is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._closed)
            return self._lines[0] if self._lines else None

    def _put(self, line: bytes) -> bool:
        """Whether the whole line was written; waits for the reader for as long as it takes."""
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                # Another process that has this stream made it non-blocking.
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()
            except OSError:
                return False
        return True

    def _settle(self, line: bytes, *, done: bool) -> int:
        """Takes the line out of the buffer; the number of dropped lines to report now."""
        with self._changed:
            self._lines.popleft()
            self._bytes -= len(line)
            self._written += 1
            if not done:
                self._drop()
            self._changed.notify_all()
            if not done or self._bytes > self._most_bytes // 2:
                return 0
            unreported, self._unreported = self._unreported, 0
            return unreported


_current: LogStream | None = None


def use(stream: LogStream | None) -> None:
    """Makes `stream` the one of the process, and closes the one before."""
    global _current  # noqa: PLW0603  # there is one stderr
    if _current is not None:
        _current.close()
    _current = stream


def flush() -> bool:
    """Waits until the log is written; False where stderr is not read, so that another write to it would block."""
    return _current is None or _current.drain()


def dropped() -> int:
    """How many lines of the log were dropped."""
    return 0 if _current is None else _current.dropped
