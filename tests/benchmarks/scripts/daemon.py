"""keysync's daemon, with its page, log and metrics: ``CONFIG [--shard I/N]``.

The first pass is the one at its start, each of the others is asked for by SIGUSR1. It is told like the others, since a
daemon's first pass reads every value.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path

from keysync import logs
from keysync.cli.run import serve
from keysync.cli.signals import Interruption
from keysync.config.load import load_config
from keysync.secret.redact import Redactor
from keysync.sources.shard import Shard
from keysync.sync.model import Report, Result
from tests.benchmarks.scripts.stages import Stopwatch, told_to_go_on


class Ends:
    """A `RunObserver` that hands on the reports of passes with anything in them: one before the first listing has nothing."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[Report] = asyncio.Queue()

    def started(self, run_id: str, work_items: int) -> None: ...

    def collected(self, run_id: str, account: str) -> None: ...

    def result(self, run_id: str, result: Result) -> None: ...

    def finished(self, report: Report) -> None:
        """Hands it on."""
        if report.results:
            self.reports.put_nowait(report)


async def told(watch: Stopwatch, ends: Ends) -> None:
    """Waits for a pass and tells of it. Raises RuntimeError where anything failed or was held back."""
    report = await ends.reports.get()
    if report.failed or report.stopped:
        wrong = next((result.reason for result in report.results if result.reason), report.stopped)
        raise RuntimeError(f"the pass failed: {wrong}")
    watch.stop(sum(result.outcome != "unchanged" for result in report.results)).tell()


async def run(config: Path, shard: Shard | None) -> None:
    """The daemon, until stdin is closed."""
    watch = Stopwatch()
    redactor, interruption, ends = Redactor(), Interruption(), Ends()
    logs.configure("info", "json", redactor.redact)
    loaded = await asyncio.to_thread(load_config, config, os.environ)
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(loaded, redactor, interruption, observers=[ends], shard=shard))
        await told(watch, ends)
        while await told_to_go_on():
            watch = Stopwatch()
            os.kill(os.getpid(), signal.SIGUSR1)
            await told(watch, ends)
        interruption.stop.set()


def main() -> None:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--shard", type=Shard.parse)
    given = parser.parse_args()
    asyncio.run(run(given.config, given.shard))


if __name__ == "__main__":
    main()
