"""What a program that is compared is told, and how it is timed.

A program gets the path of a file with its `Work`. Without more it makes one pass and ends. With `--steps` it makes one pass
that nobody times, says so by an empty line on stdout, and then a timed pass for each line on stdin; each is told as a line of
JSON.
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
    """One Batch account, and the vault that gets its keys."""

    subscription_id: str
    resource_group: str
    name: str
    vault: str

    def secrets(self) -> Mapping[str, str]:
        """The name of each key's secret."""
        return {key: f"{self.name}-{key}-key" for key in KEYS}


@dataclass(frozen=True)
class Work:
    """All accounts, and where Azure is."""

    authority: str
    resource_manager: str
    accounts: Sequence[Account]

    @classmethod
    def read(cls, path: Path) -> Self:
        """From its file."""
        told = json.loads(path.read_text(encoding="utf-8"))
        accounts = [Account(**account) for account in told["accounts"]]
        return cls(told["authority"], told["resource_manager"], accounts)

    def write(self, path: Path) -> None:
        """To its file."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @property
    def scope(self) -> str:
        """What a token for Resource Manager is for."""
        return f"{self.resource_manager}/.default"

    @property
    def subscriptions(self) -> frozenset[str]:
        """All of them."""
        return frozenset(account.subscription_id for account in self.accounts)

    @property
    def vaults(self) -> frozenset[str]:
        """The URLs of all vaults."""
        return frozenset(account.vault for account in self.accounts)


@dataclass(frozen=True)
class Timed:
    """One pass: wall and CPU seconds, the secrets written, and the most that the process had resident so far, in KiB."""

    wall: float
    cpu: float
    written: int
    peak: int

    @classmethod
    def parse(cls, line: str) -> Self:
        """From its line. Raises ValueError."""
        return cls(**json.loads(line))

    def tell(self) -> None:
        """To stdout."""
        print(json.dumps(asdict(self)), flush=True)


class Stopwatch:
    """Runs from its making."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self, written: int) -> Timed:
        """What the pass took that has just ended."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return Timed(wall, cpu, written, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def ready() -> None:
    """The untimed pass is over."""
    print(flush=True)


def in_steps() -> bool:
    """Whether the command line asks for more than one pass."""
    return "--steps" in sys.argv[1:]


async def told_to_go_on() -> bool:
    """Waits for a line on stdin, with the loop going on; False at its end."""
    return bool(await asyncio.to_thread(sys.stdin.readline))


def work_from_command_line() -> Work:
    """What to do."""
    return Work.read(Path(sys.argv[1]))


def run(one_run: Callable[[], int]) -> None:
    """Passes as the command line asks; each returns how many secrets it wrote."""
    one_run()
    if not in_steps():
        return
    ready()
    for _ in sys.stdin:
        watch = Stopwatch()
        watch.stop(one_run()).tell()
