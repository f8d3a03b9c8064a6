"""The input of a compared program, and its measurement.

A program gets the path of a file with its `Work`, does one run and ends. With `--steps` it does one run without measurement
and prints an empty line. Then it does a measured run for each line on stdin, and prints its `Timed` as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

KEYS = ("primary", "secondary")


@dataclass(frozen=True)
class Account:
    """One Batch account, and the URL of the vault for its keys."""

    subscription_id: str
    resource_group: str
    name: str
    vault: str

    def secrets(self) -> Mapping[str, str]:
        """The secret name of each key."""
        return {key: f"{self.name}-{key}-key" for key in KEYS}


@dataclass(frozen=True)
class Work:
    """All accounts, and the addresses of Azure."""

    authority: str
    resource_manager: str
    accounts: Sequence[Account]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read it from a file."""
        content = json.loads(path.read_text(encoding="utf-8"))
        accounts = [Account(**account) for account in content["accounts"]]
        return cls(content["authority"], content["resource_manager"], accounts)

    def write(self, path: Path) -> None:
        """Write it to a file."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @property
    def scope(self) -> str:
        """The scope of tokens for Resource Manager."""
        return f"{self.resource_manager}/.default"

    @property
    def subscriptions(self) -> frozenset[str]:
        """The ids of all subscriptions."""
        return frozenset(account.subscription_id for account in self.accounts)

    @property
    def vaults(self) -> frozenset[str]:
        """The URLs of all vaults."""
        return frozenset(account.vault for account in self.accounts)


@dataclass(frozen=True)
class Timed:
    """One run: wall and CPU seconds, the number of secrets written, and the peak resident memory of the process in KiB."""

    wall: float
    cpu: float
    written: int
    peak: int

    @classmethod
    def parse(cls, line: str) -> Self:
        """Parse a line of `print`. Raises ValueError for another line."""
        return cls(**json.loads(line))

    def print(self) -> None:
        """Print it as one line of JSON."""
        print(json.dumps(asdict(self)), flush=True)


class Stopwatch:
    """Measures from its creation."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self, written: int) -> Timed:
        """The measurement of the run that has just ended."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return Timed(wall, cpu, written, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def ready() -> None:
    """Report the end of the run without measurement."""
    print(flush=True)


def in_steps() -> bool:
    """Whether the command line has `--steps`."""
    return "--steps" in sys.argv[1:]


async def next_step() -> bool:
    """Wait for a line on stdin without blocking the event loop; False at the end of stdin."""
    return bool(await asyncio.to_thread(sys.stdin.readline))


def work_from_command_line() -> Work:
    """The work of this program."""
    return Work.read(Path(sys.argv[1]))


def run(one_run: Callable[[], int]) -> None:
    """Do one run, or as many as the command line asks for. `one_run` returns how many secrets it wrote."""
    one_run()
    if not in_steps():
        return
    ready()
    for _ in sys.stdin:
        stopwatch = Stopwatch()
        stopwatch.stop(one_run()).print()
