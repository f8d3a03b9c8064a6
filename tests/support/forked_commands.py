"""keysync in a new process without its import time: a process with the imports forks for each command."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn, Self

from keysync import log_stream

_TIME = 60


class Forks(AbstractContextManager["Forks"]):
    """Runs commands one after the other, with warnings as errors; its process ends with the block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            # -P: the azure.py beside this file is not the SDK.
            [sys.executable, "-W", "error", "-X", "dev", "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:
            _pipe(self._process.stdin).close()

    def run(self, arguments: Sequence[str], env: Mapping[str, str], cwd: Path | None) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of `keysync` with these arguments and only this environment."""
        self._count += 1
        out, err = (self._folder / f"{self._count}.{name}" for name in ("out", "err"))
        asked = {"arguments": list(arguments), "env": dict(env), "cwd": str(cwd or Path.cwd())}
        requests = _pipe(self._process.stdin)
        requests.write(json.dumps({**asked, "out": str(out), "err": str(err)}) + "\n")
        requests.flush()
        code = int(_pipe(self._process.stdout).readline())
        return code, out.read_text(), err.read_text()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def _serve() -> None:
    """Forks for each line of stdin, until the end of stdin."""
    import keysync.cli.sync  # noqa: PLC0415  # each command would import it
    import keysync.config.load  # noqa: F401, PLC0415  # otherwise each would start a process to read its file
    from keysync.cli.main import invoke  # noqa: PLC0415  # only in this file's process

    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _be(invoke, json.loads(line))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _be(invoke: Callable[[], int], asked: Mapping[str, Any]) -> NoReturn:
    signal.alarm(_TIME)
    for number, place in enumerate((os.devnull, asked["out"], asked["err"])):
        opened = os.open(place, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    sys.argv = ["keysync", *asked["arguments"]]
    code = invoke()
    log_stream.flush()  # as `main` does
    gc.collect()  # unclosed objects warn now
    sys.stdout.flush()
    sys.stderr.flush()
    # Ending an interpreter with all these modules takes longer than most commands.
    os._exit(code)


if __name__ == "__main__":
    _serve()
