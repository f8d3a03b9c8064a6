"""The programs that are compared, each in a process of its own, and what they took."""

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
class Took:
    """A whole process: wall and CPU seconds, and the most it had resident, in KiB."""

    wall: float
    cpu: float
    peak: int


@dataclass(frozen=True)
class Program:
    """One that is compared: its commands for one run, and for passes one after the other.

    With `remembers` it is another program once it has written and looked: it is measured after that. It has at most
    `most` turns.
    """

    name: str
    once: Sequence[str]
    steps: Sequence[str]
    remembers: bool = False
    most: int = 1000


def programs(folder: Path, azure: Running) -> Sequence[Program]:
    """All of them, for what `azure` holds; their files are written to `folder`."""
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
    """The same for the scripts."""
    fleet, urls = azure.fleet, azure.ready["vaults"]
    accounts = [
        Account(fleet.subscription(number), GROUP, fleet.name(number), urls[fleet.vault(number)])
        for number in range(fleet.accounts)
    ]
    return Work(azure.ready["authority"], azure.ready["resource_manager"], accounts)


def script(name: str, module: str, work: Path, *, most: int = 1000) -> Program:
    """One of the scripts, with the file of its `Work`."""
    once = [*_module(module), str(work)]
    return Program(name, once, [*once, "--steps"], most=most)


def _module(name: str) -> list[str]:
    return _python("-m", f"tests.benchmarks.scripts.{name}")


def _python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def environment(ca_bundle: str) -> Mapping[str, str]:
    """What every program gets: the certificate of the embedded Azure for both kinds of SDK, and no proxy."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    paths = os.pathsep.join(filter(None, (str(_ROOT), kept.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": paths, "REQUESTS_CA_BUNDLE": ca_bundle, "SSL_CERT_FILE": ca_bundle}


def whole(command: Sequence[str], env: Mapping[str, str]) -> Took:
    """Runs a command to its end, without its output. Raises RuntimeError where it fails."""
    with TemporaryDirectory() as folder:
        result, err = Path(folder, "took.json"), Path(folder, "stderr")
        with err.open("wb") as stream:
            process = subprocess.Popen(
                _gauged(result, command), env=dict(env), cwd=folder, stdout=subprocess.DEVNULL, stderr=stream
            )
            with ended(process):
                process.wait()
        if process.returncode:
            raise RuntimeError(f"{command} ended with {process.returncode}: {err.read_text()[-2000:]}")
        return Took(**json.loads(result.read_text()))


def _gauged(result: Path, command: Sequence[str]) -> list[str]:
    return [sys.executable, "-I", "-S", str(_GAUGE), str(result), *command]


class Steps:
    """A program that makes a run whenever it is told to."""

    def __init__(self, stdin: IO[str], stdout: IO[str], err: Path) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._err = err

    def ready(self) -> str:
        """Waits for the run at the start, and returns what the program said of it."""
        return self._line()

    def go(self) -> None:
        """Lets a run begin."""
        self._stdin.write("\n")
        self._stdin.flush()

    def end(self) -> Timed:
        """Waits for its end."""
        return Timed.parse(self._line())

    def one_run(self) -> Timed:
        """A run."""
        self.go()
        return self.end()

    def _line(self) -> str:
        line = self._stdout.readline()
        if not line:
            raise RuntimeError(f"the program has ended: {self._err.read_text()[-2000:]}")
        return line


@contextmanager
def stepping(command: Sequence[str], env: Mapping[str, str]) -> Iterator[Steps]:
    """Starts a program that goes by steps, and ends it; what it logs is kept for the case that it fails."""
    with TemporaryDirectory() as folder:
        err = Path(folder, "stderr")
        with err.open("wb") as stream:
            process = subprocess.Popen(
                _gauged(Path(folder, "took.json"), command),
                env=dict(env),
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )
        with ended(process):
            assert process.stdin is not None
            assert process.stdout is not None
            yield Steps(process.stdin, process.stdout, err)
            process.stdin.close()
            process.wait()
            process.stdout.close()


@contextmanager
def ended(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> Iterator[None]:
    """Ends it where the block failed before it was over."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
