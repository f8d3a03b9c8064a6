"""The log never blocks on stderr, keeps the lines that fit its buffer, and counts the lines it drops."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from keysync import log_stream, logs
from keysync.log_stream import LogStream

PATIENCE = 60.0
SMALL = 4096
"""The smallest capacity of a pipe."""


@dataclass
class Pipe:
    """A pipe with a capacity of one page."""

    reading: int
    writing: int

    def read(self, size: int = 1 << 16) -> bytes:
        """At most `size` bytes; waits until there are some."""
        return os.read(self.reading, size)

    def read_to_the_end(self) -> bytes:
        """Everything, until all writers have closed the pipe."""
        os.close(self.writing)
        parts = []
        while part := self.read():
            parts.append(part)
        return b"".join(parts)

    def close_reader(self) -> None:
        """Closes the reading end."""
        os.close(self.reading)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    ends = Pipe(*os.pipe())
    fcntl.fcntl(ends.writing, fcntl.F_SETPIPE_SZ, SMALL)
    yield ends
    for descriptor in (ends.reading, ends.writing):
        try:
            os.close(descriptor)
        except OSError:
            continue


def lines(count: int) -> list[str]:
    return [f"line {number:05} {'x' * 80}\n" for number in range(count)]


def test_no_line_is_lost_while_stderr_can_be_written(tmp_path: Path) -> None:
    """Lines of several threads arrive whole, and each thread's in order."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        stream = LogStream(file.fileno(), lambda _count: None)
    threads = [
        threading.Thread(target=lambda part=part: [stream.write(f"{part} {text}") for text in lines(500)])
        for part in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stream.drain(PATIENCE)
    stream.close()
    written = path.read_text().splitlines(keepends=True)
    assert len(written) == 2000
    for part in range(4):
        assert [text[2:] for text in written if text[0] == str(part)] == lines(500)
    assert stream.dropped == 0


def test_an_unread_stderr_does_not_block_the_writer(pipe: Pipe) -> None:
    """Lines beyond the buffer are dropped and counted; the others arrive whole and in order once stderr is read."""
    reported: list[int] = []
    stream = LogStream(pipe.writing, reported.append, most_bytes=10_000)
    for text in lines(2_000):
        stream.write(text)
    dropped = stream.dropped
    assert dropped > 1_000
    stream.close()
    received = pipe.read_to_the_end().decode().splitlines(keepends=True)
    assert received == sorted(received)
    assert set(received) <= set(lines(2_000))
    assert len(received) + dropped == 2_000
    assert sum(reported) == dropped


def test_a_line_longer_than_the_buffer_is_written(pipe: Pipe) -> None:
    """An empty buffer accepts a line of any length."""
    stream = LogStream(pipe.writing, lambda _count: None, most_bytes=10)
    stream.write("x" * 100 + "\n")
    stream.close()
    assert pipe.read_to_the_end() == b"x" * 100 + b"\n"


def test_lines_for_a_closed_stderr_are_counted_but_not_reported(pipe: Pipe) -> None:
    """A log line about them would be lost too, endlessly."""
    reported: list[int] = []
    stream = LogStream(pipe.writing, reported.append)
    pipe.close_reader()
    for text in lines(10):
        stream.write(text)
    assert stream.drain(PATIENCE)
    assert (stream.dropped, reported) == (10, [])
    stream.close()


def test_later_lines_are_written_once_a_full_disk_has_space(tmp_path: Path) -> None:
    """The number of lost lines is reported once."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    reported: list[int] = []
    path = tmp_path / "log"
    with full.open("wb") as file:
        stream = LogStream(file.fileno(), reported.append)
    for text in lines(3):
        stream.write(text)
    assert stream.drain(PATIENCE)
    with path.open("wb") as file:
        os.dup2(file.fileno(), stream._fd)
    for text in lines(2):
        stream.write(text)
    assert stream.drain(PATIENCE)
    stream.close()
    assert path.read_text() == "".join(lines(2))
    assert (stream.dropped, reported) == (3, [3])


def test_a_stream_that_another_process_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    """The mode belongs to the open file, which other processes may share."""
    os.set_blocking(pipe.writing, False)
    stream = LogStream(pipe.writing, lambda _count: None)
    for text in lines(1_000):
        stream.write(text)
    stream.close()
    assert pipe.read_to_the_end().decode() == "".join(lines(1_000))
    assert stream.dropped == 0


def test_drain_stops_waiting_for_an_unread_stderr(pipe: Pipe) -> None:
    """It goes on waiting only while lines are being written."""
    stream = LogStream(pipe.writing, lambda _count: None)
    for text in lines(1_000):
        stream.write(text)
    assert not stream.drain(0.01)
    stream.close()
    pipe.read_to_the_end()
    assert stream.drain(PATIENCE)


@pytest.fixture
def stderr_is(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Configures the log as in production with the given stderr; restores the log afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def configure(descriptor: int) -> None:
        with os.fdopen(os.dup(descriptor), "w") as stderr:
            monkeypatch.setattr("sys.stderr", stderr)
            logs.configure("info", "json", str)
            monkeypatch.undo()

    yield configure
    log_stream.set_current(None)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_dropped_lines_are_logged_once_stderr_is_read(
    pipe: Pipe, stderr_is: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning has the same number as the metric; no line is truncated."""
    monkeypatch.setattr(log_stream.LogStream.__init__, "__kwdefaults__", {"most_bytes": 10_000})
    stderr_is(pipe.writing)
    os.write(pipe.writing, b"\n" * SMALL)  # the pipe is full, so no line is written until it is read
    log = structlog.get_logger("keysync")
    for number in range(500):
        log.info("config.restored", number=number, filling="x" * 80)
    dropped = log_stream.dropped()
    assert dropped > 0
    received = b""
    while b"log.dropped" not in received:
        received += pipe.read()
    log_stream.set_current(None)
    received += pipe.read_to_the_end()
    events = [json.loads(line) for line in received.splitlines() if line]
    numbers = [event["number"] for event in events if event["event"] == "config.restored"]
    reported = [event for event in events if event["event"] == "log.dropped"]
    assert numbers == sorted(numbers)
    assert len(numbers) + dropped == 500
    assert {event["level"] for event in reported} == {"warning"}
    assert sum(event["lines"] for event in reported) == dropped
