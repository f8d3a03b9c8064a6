"""keysync in its own processes that start at once: forked from a process that has imported everything."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PATIENCE = 60.0
"""The longest time in seconds for one run."""


@dataclass(frozen=True)
class Done:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


class WarmKeysync:
    """Starts `keysync` commands one at a time, and kills them on request."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._unread = b""
        self._pid: int | None = None

    def start(self, arguments: Sequence[str], *, env: Mapping[str, str], out: Path, err: Path) -> None:
        """Starts a command; its output is written to the files `out` and `err`."""
        assert self._process.stdin is not None
        assert self._pid is None
        order = {"arguments": list(arguments), "env": dict(env), "out": str(out), "err": str(err)}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        self._pid = int(self._line())

    @property
    def pid(self) -> int | None:
        """The process id of the command, until `wait` returns."""
        return self._pid

    def run(self, arguments: Sequence[str], *, env: Mapping[str, str], folder: Path) -> Done:
        """Runs a command until it ends."""
        out, err = folder / "stdout", folder / "stderr"
        self.start(arguments, env=env, out=out, err=err)
        return Done(self.wait(), out.read_text(), err.read_text())

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Sends a signal. It is harmless after the command has ended, as its pid is reused only after `wait`
        returns."""
        assert self._pid is not None
        os.kill(self._pid, signum)

    def wait(self) -> int:
        """Waits for the exit code; negative for a signal."""
        self._tell("reap")
        code = int(self._line())
        self._pid = None
        return code

    def has_ended(self) -> bool:
        """Whether the command has ended."""
        self._tell("look")
        return self._line() == b"over"

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(word).encode() + b"\n")
        self._process.stdin.flush()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        until = time.monotonic() + _PATIENCE
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            assert ready, "keysync did not end in time"
            chunk = os.read(self._process.stdout.fileno(), 4096)
            assert chunk, "the warm process is gone"
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def close(self) -> None:
        """Ends the running command, if any, and the process that forks."""
        if self._pid is not None:
            self.kill()
        self._process.communicate(timeout=20)


@contextmanager
def warm_keysync(env: Mapping[str, str]) -> Iterator[WarmKeysync]:
    """A warm process with the environment `env`, with warnings as errors as in the whole suite."""
    process = subprocess.Popen(
        # -P: the azure.py in the program's folder is not the SDK.
        [sys.executable, "-P", "-W", "error", str(Path(__file__).with_name("warm_server.py"))],
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    warm = WarmKeysync(process)
    try:
        yield warm
    finally:
        warm.close()
