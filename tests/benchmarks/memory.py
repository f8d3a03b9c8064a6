"""The resident memory of an idle `keysync run`: ``python -m tests.benchmarks.memory --help``."""

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
from tests.benchmarks.programs import environment, terminating
from tests.benchmarks.tables import machine, publish, table

_ACCOUNTS_PER_SUBSCRIPTION, _ACCOUNTS_PER_VAULT = 1000, 500
_POLL_SECONDS = 0.2
_TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True)
class Resident:
    """Resident memory in KiB: idle after the first run, idle after two more, and the peak."""

    first: int
    later: int
    peak: int


class Daemon:
    """A `keysync run`, with its process and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, idle: float) -> None:
        self._process = process
        self._log = log
        self._idle = idle

    def after_runs(self, count: int) -> int:
        """The resident memory in KiB after `count` runs with accounts and the idle time."""
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while len(self._runs()) < count:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the runs did not end: {self._log.read_text()[-2000:]}")
            time.sleep(_POLL_SECONDS)
        time.sleep(self._idle)
        return self.status("VmRSS")

    def sync(self) -> None:
        """Start a run (SIGUSR1)."""
        self._process.send_signal(signal.SIGUSR1)

    def status(self, name: str) -> int:
        """A field of /proc/PID/status, in KiB."""
        text = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        match = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
        assert match is not None
        return int(match[1])

    def _runs(self) -> Sequence[str]:
        # The run before the first listing has no accounts.
        return re.findall(r'^\{.*"unchanged": [1-9].*"event": "run\.finished".*$', self._log.read_text(), re.MULTILINE)


@contextmanager
def daemon(config: Path, env: Mapping[str, str], idle: float) -> Iterator[Daemon]:
    """Run the daemon until the block ends. It is measured after `idle` seconds without work."""
    log = config.parent / "log"
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "keysync", "run", "-c", str(config), "--log-format", "json"]
        process = subprocess.Popen(command, env=dict(env), cwd=config.parent, stdout=stream, stderr=stream)
    with terminating(process):
        yield Daemon(process, log, idle)


def measure(accounts: int, idle: float, *, discover: bool) -> Resident:
    """Measure with accounts that are listed in the configuration, or discovered."""
    subscriptions, vaults = -(-accounts // _ACCOUNTS_PER_SUBSCRIPTION), -(-accounts // _ACCOUNTS_PER_VAULT)
    fleet = Fleet(accounts, vaults, subscriptions, in_sync=True)
    with TemporaryDirectory() as folder, running(fleet) as azure:
        config = Path(folder, "keysync.yaml")
        settings = {"schedule": {"every": "6h"}, "listen": "127.0.0.1:0"}
        write_config(config, azure.document(discover=discover, **settings))
        with daemon(config, environment(azure.ready["ca_bundle"]), idle) as running_daemon:
            first = running_daemon.after_runs(1)
            for count in (2, 3):
                running_daemon.sync()
                later = running_daemon.after_runs(count)
            return Resident(first, later, running_daemon.status("VmHWM"))


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, nargs="+", default=[1, 10_000])
    parser.add_argument("--idle", type=duration, default=22.0, help="time from the end of a run until the measurement")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the table in this document")
    options = parser.parse_args()
    rows: list[tuple[str, ...]] = []
    for accounts in options.accounts:
        for origin in ("listed", "discovered"):
            resident = measure(accounts, options.idle, discover=origin == "discovered")
            rows.append(
                (
                    f"{accounts:,} {origin}",
                    *(f"{kib / 1024:.0f} MB" for kib in (resident.first, resident.later, resident.peak)),
                )
            )
            print(*rows[-1], sep="  ", file=sys.stderr)
    head = ("accounts", "idle after the first run", "idle after two more", "at most")
    publish("memory", f"{machine()}.\n\n{table(head, rows)}", options.write)


if __name__ == "__main__":
    main()
