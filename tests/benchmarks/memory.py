"""What an idle `keysync run` has resident: ``python -m tests.benchmarks.memory --help``."""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.azure import duration, running
from tests.benchmarks.fleets import Fleet, write_config
from tests.benchmarks.programs import ended, environment
from tests.benchmarks.tables import machine, table, told

_ACCOUNTS_A_SUBSCRIPTION, _ACCOUNTS_A_VAULT = 1000, 500
_LOOK_SECONDS = 0.2
_PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Resident:
    """In KiB: when nothing is done after the first run and after two more, and the most there was."""

    first: int
    later: int
    peak: int


class Daemon:
    """A `keysync run`, by its process and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, idle: float) -> None:
        self._process = process
        self._log = log
        self._idle = idle

    def after_runs(self, count: int) -> int:
        """What is resident when `count` runs over anything have ended since the start, and it has been idle for a while."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while len(self._runs()) < count:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the runs did not end: {self._log.read_text()[-2000:]}")
            time.sleep(_LOOK_SECONDS)
        time.sleep(self._idle)
        return self.status("VmRSS")

    def sync(self) -> None:
        """Asks for a run."""
        self._process.send_signal(signal.SIGUSR1)

    def status(self, name: str) -> int:
        """What the kernel says of the process, in KiB."""
        text = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
        assert found is not None
        return int(found[1])

    def _runs(self) -> Sequence[str]:
        # The one before the first listing has nothing in it.
        return re.findall(r'^\{.*"unchanged": [1-9].*"event": "run\.finished".*$', self._log.read_text(), re.MULTILINE)


@contextmanager
def daemon(config: Path, env: Mapping[str, str], idle: float) -> Iterator[Daemon]:
    """Runs it until the block ends; it is looked at when it was idle for so many seconds."""
    log = config.parent / "log"
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "keysync", "run", "-c", str(config), "--log-format", "json"]
        process = subprocess.Popen(command, env=dict(env), cwd=config.parent, stdout=stream, stderr=stream)
    with ended(process):
        yield Daemon(process, log, idle)


def measure(accounts: int, idle: float, *, discover: bool) -> Resident:
    """With so many accounts, listed in the configuration or discovered."""
    subscriptions, vaults = -(-accounts // _ACCOUNTS_A_SUBSCRIPTION), -(-accounts // _ACCOUNTS_A_VAULT)
    fleet = Fleet(accounts, vaults, subscriptions, in_sync=True)
    with TemporaryDirectory() as folder, running(fleet) as azure:
        config = Path(folder, "keysync.yaml")
        own = {"schedule": {"every": "6h"}, "listen": "127.0.0.1:0"}
        write_config(config, azure.document(discover=discover, **own))
        with daemon(config, environment(azure.ready["ca_bundle"]), idle) as running_daemon:
            first = running_daemon.after_runs(1)
            for count in (2, 3):
                running_daemon.sync()
                later = running_daemon.after_runs(count)
            return Resident(first, later, running_daemon.status("VmHWM"))


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, nargs="+", default=[1, 10_000])
    parser.add_argument("--idle", type=duration, default=22.0, help="time after a run until it is looked at")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this document")
    given = parser.parse_args()
    rows = []
    for accounts in given.accounts:
        for how in ("listed", "discovered"):
            found = measure(accounts, given.idle, discover=how == "discovered")
            rows.append(
                (f"{accounts:,} {how}", *(f"{kib / 1024:.0f} MB" for kib in (found.first, found.later, found.peak)))
            )
            print(*rows[-1], sep="  ", file=sys.stderr)
    head = ("accounts", "idle after the first run", "idle after two more", "at most")
    told("memory", f"{machine()}.\n\n{table(head, rows)}", given.write)


if __name__ == "__main__":
    main()
