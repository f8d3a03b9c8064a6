"""The compared programs, each in its own process, and their cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from tests.benchmarks.azure import Running
from tests.benchmarks.fleets import GROUP, write_config
from tests.benchmarks.scripts.stages import Account, Timed, Work

_ROOT = Path(__file__).parents[2]
_GAUGE = Path(__file__).with_name("gauge.py")


@dataclass(frozen=True)
class ProcessCost:
    """The cost of a process: wall and CPU seconds, and the peak resident memory in KiB."""

    wall: float
    cpu: float
    peak: int


@dataclass(frozen=True)
class Program:
    """A compared program: the command for one run (`once`), and for several runs in one process (`steps`).

    With `remembers` it caches the secrets that it wrote and read, so it is measured after two further runs. It has at most
    `most` turns.
    """

    name: str
    once: Sequence[str]
    steps: Sequence[str]
    remembers: bool = False
    most: int = 1000


def programs(folder: Path, azure: Running) -> Sequence[Program]:
    """All programs, for the fleet of `azure`. Their files are written to `folder`."""
    config, work = folder / "keysync.yaml", folder / "work.json"
    write_config(config, azure.document(schedule={"every": "1h"}, listen="127.0.0.1:0"))
    work_of(azure).write(work)
    daemon = [*_module("daemon"), str(config)]
    keysync = Program("keysync", [*_python("-m", "keysync"), "sync", "-c", str(config)], daemon, remembers=True)
    return (
        keysync,
        script("asyncio, 64 in flight", "asyncio_", work),
        script("16 threads", "threads", work),
        script("sequential", "sequential", work, most=3),
    )


def work_of(azure: Running) -> Work:
    """The work for the scripts: the same accounts."""
    fleet, urls = azure.fleet, azure.ready["vaults"]
    accounts = [
        Account(fleet.subscription(number), GROUP, fleet.name(number), urls[fleet.vault(number)])
        for number in range(fleet.accounts)
    ]
    return Work(azure.ready["authority"], azure.ready["resource_manager"], accounts)


def script(name: str, module: str, work: Path, *, most: int = 1000) -> Program:
    """A script of `scripts/`. `work` is the file with its `Work`."""
    once = [*_module(module), str(work)]
    return Program(name, once, [*once, "--steps"], most=most)


def _module(name: str) -> list[str]:
    return _python("-m", f"tests.benchmarks.scripts.{name}")


def _python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def environment(ca_bundle: str) -> Mapping[str, str]:
    """The environment of every program: the emulator's CA for both kinds of SDK, and no proxy."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    paths = os.pathsep.join(filter(None, (str(_ROOT), kept.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": paths, "REQUESTS_CA_BUNDLE": ca_bundle, "SSL_CERT_FILE": ca_bundle}


def run_process(command: Sequence[str], env: Mapping[str, str]) -> ProcessCost:
    """Run a command without its output. Raises RuntimeError if it fails."""
    with TemporaryDirectory() as folder:
        result, err = Path(folder, "cost.json"), Path(folder, "stderr")
        with err.open("wb") as stream:
            process = subprocess.Popen(
                _gauged(result, command), env=dict(env), cwd=folder, stdout=subprocess.DEVNULL, stderr=stream
            )
            with terminating(process):
                process.wait()
        if process.returncode:
            raise RuntimeError(f"{command} ended with {process.returncode}: {err.read_text()[-2000:]}")
        return ProcessCost(**json.loads(result.read_text()))


def _gauged(result: Path, command: Sequence[str]) -> list[str]:
    return [sys.executable, "-I", "-S", str(_GAUGE), str(result), *command]


class Steps:
    """A program that does one run for each request."""

    def __init__(self, stdin: IO[str], stdout: IO[str], err: Path) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._err = err

    def ready(self) -> str:
        """Wait for the end of the first run; returns the line that the program printed."""
        return self._line()

    def go(self) -> None:
        """Start a run."""
        self._stdin.write("\n")
        self._stdin.flush()

    def end(self) -> Timed:
        """Wait for the end of the run; returns its times."""
        return Timed.parse(self._line())

    def one_run(self) -> Timed:
        """Do one run; returns its times."""
        self.go()
        return self.end()

    def _line(self) -> str:
        line = self._stdout.readline()
        if not line:
            raise RuntimeError(f"the program has ended: {self._err.read_text()[-2000:]}")
        return line


@contextmanager
def open_steps(command: Sequence[str], env: Mapping[str, str]) -> Iterator[Steps]:
    """Run a program with `--steps` until the block ends. Its stderr is quoted if it fails."""
    with TemporaryDirectory() as folder:
        err = Path(folder, "stderr")
        with err.open("wb") as stream:
            process = subprocess.Popen(
                _gauged(Path(folder, "cost.json"), command),
                env=dict(env),
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )
        with terminating(process):
            assert process.stdin is not None
            assert process.stdout is not None
            yield Steps(process.stdin, process.stdout, err)
            process.stdin.close()
            process.wait()
            process.stdout.close()


@contextmanager
def terminating(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> Iterator[None]:
    """Terminate the process if it still runs at the end of the block."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
