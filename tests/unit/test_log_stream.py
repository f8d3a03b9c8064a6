"""The log never waits for who reads stderr, loses nothing that is read, and counts what it drops."""

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
"""The smallest capacity that a pipe can have."""


@dataclass
class Pipe:
    """A pipe that holds a page."""

    reading: int
    writing: int

    def read(self, size: int = 1 << 16) -> bytes:
        """What is there, at most `size` bytes; waits for something."""
        return os.read(self.reading, size)

    def read_to_the_end(self) -> bytes:
        """Everything, until the writers have gone."""
        os.close(self.writing)
        parts = []
        while part := self.read():
            parts.append(part)
        return b"".join(parts)

    def exit_now(self) -> None:
        """The reader goes."""
        os.close(self.reading)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe(*os.pipe())
    fcntl.fcntl(made.writing, fcntl.F_SETPIPE_SZ, SMALL)
    yield made
    for descriptor in (made.reading, made.writing):
        try:
            os.close(descriptor)
        except OSError:
            continue


def lines(count: int) -> list[str]:
    return [f"line {number:05} {'x' * 80}\n" for number in range(count)]


def test_nothing_is_lost_where_it_can_be_written(tmp_path: Path) -> None:
    """All lines, in their order, from several threads, whole."""
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


def test_a_reader_that_does_not_read_stops_nobody(pipe: Pipe) -> None:
    """What is beyond the buffer is dropped and counted; what was taken comes whole and in order once it is read."""
    told: list[int] = []
    stream = LogStream(pipe.writing, told.append, most_bytes=10_000)
    for text in lines(2_000):
        stream.write(text)
    dropped = stream.dropped
    assert dropped > 1_000
    stream.close()
    came = pipe.read_to_the_end().decode().splitlines(keepends=True)
    assert came == sorted(came)
    assert set(came) <= set(lines(2_000))
    assert len(came) + dropped == 2_000
    assert sum(told) == dropped


def test_one_line_that_is_longer_than_the_buffer_is_taken(pipe: Pipe) -> None:
    """It is no reason to lose it."""
    stream = LogStream(pipe.writing, lambda _count: None, most_bytes=10)
    stream.write("x" * 100 + "\n")
    stream.close()
    assert pipe.read_to_the_end() == b"x" * 100 + b"\n"


def test_where_nobody_reads_any_more_each_line_is_counted_and_none_is_told(pipe: Pipe) -> None:
    """A line about it would only be lost too, without end."""
    told: list[int] = []
    stream = LogStream(pipe.writing, told.append)
    pipe.exit_now()
    for text in lines(10):
        stream.write(text)
    assert stream.drain(PATIENCE)
    assert (stream.dropped, told) == (10, [])
    stream.close()


def test_a_disk_that_has_room_again_gets_the_lines_that_follow(tmp_path: Path) -> None:
    """And the number of those that were lost, once."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    told: list[int] = []
    path = tmp_path / "log"
    with full.open("wb") as file:
        stream = LogStream(file.fileno(), told.append)
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
    assert (stream.dropped, told) == (3, [3])


def test_a_stream_that_another_process_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    """The mode belongs to the open file, which others may share."""
    os.set_blocking(pipe.writing, False)
    stream = LogStream(pipe.writing, lambda _count: None)
    for text in lines(1_000):
        stream.write(text)
    stream.close()
    assert pipe.read_to_the_end().decode() == "".join(lines(1_000))
    assert stream.dropped == 0


def test_waiting_for_a_reader_that_does_not_read_ends(pipe: Pipe) -> None:
    """As at the end of a process; with progress it goes on to wait."""
    stream = LogStream(pipe.writing, lambda _count: None)
    for text in lines(1_000):
        stream.write(text)
    assert not stream.drain(0.01)
    stream.close()
    pipe.read_to_the_end()
    assert stream.drain(PATIENCE)


@pytest.fixture
def stderr_is(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Sets the log up as it is in production, with stderr as given; all is as it was afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def configure(descriptor: int) -> None:
        with os.fdopen(os.dup(descriptor), "w") as stderr:
            monkeypatch.setattr("sys.stderr", stderr)
            logs.configure("info", "json", str)
            monkeypatch.undo()

    yield configure
    log_stream.use(None)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_the_log_says_how_many_lines_it_dropped_once_it_is_read(
    pipe: Pipe, stderr_is: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning with the number, which is that of the metric too; no line is cut."""
    monkeypatch.setattr(log_stream.LogStream.__init__, "__kwdefaults__", {"most_bytes": 10_000})
    stderr_is(pipe.writing)
    os.write(pipe.writing, b"\n" * SMALL)  # full: not a line is written before it is read
    log = structlog.get_logger("keysync")
    for number in range(500):
        log.info("config.restored", number=number, filling="x" * 80)
    dropped = log_stream.dropped()
    assert dropped > 0
    came = b""
    while b"log.dropped" not in came:
        came += pipe.read()
    log_stream.use(None)
    came += pipe.read_to_the_end()
    events = [json.loads(line) for line in came.splitlines() if line]
    numbers = [event["number"] for event in events if event["event"] == "config.restored"]
    told = [event for event in events if event["event"] == "log.dropped"]
    assert numbers == sorted(numbers)
    assert len(numbers) + dropped == 500
    assert {event["level"] for event in told} == {"warning"}
    assert sum(event["lines"] for event in told) == dropped
