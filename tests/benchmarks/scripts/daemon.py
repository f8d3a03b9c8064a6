"""keysync's daemon, with its page, log and metrics: ``CONFIG [--shard I/N]``.

The first run is the one at the start; SIGUSR1 starts each of the others. The first one is measured too, because it reads
every value.
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
from keysync.sync.runtime import Shared
from tests.benchmarks.scripts.stages import Stopwatch, next_step


class ReportQueue:
    """A `RunObserver` that queues the reports of runs with accounts. The run before the first listing has none."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[Report] = asyncio.Queue()

    def started(self, run_id: str, work_items: int) -> None: ...

    def collected(self, run_id: str, account: str) -> None: ...

    def result(self, run_id: str, result: Result) -> None: ...

    def finished(self, report: Report) -> None:
        """Queue the report if it has results."""
        if report.results:
            self.reports.put_nowait(report)


async def print_run(stopwatch: Stopwatch, queue: ReportQueue) -> None:
    """Wait for a run and print its measurement. Raises RuntimeError if it failed or was stopped by a limit."""
    report = await queue.reports.get()
    if report.failed or report.stopped:
        reason = next((result.reason for result in report.results if result.reason), report.stopped)
        raise RuntimeError(f"the run failed: {reason}")
    stopwatch.stop(sum(result.outcome != "unchanged" for result in report.results)).print()


async def run(config: Path, shard: Shard | None) -> None:
    """Run the daemon until stdin is closed."""
    stopwatch = Stopwatch()
    redactor, interruption, queue = Redactor(), Interruption(), ReportQueue()
    logs.configure("info", "json", redactor.redact)
    loaded = await asyncio.to_thread(load_config, config, os.environ)
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(loaded, Shared(redactor, (queue,), shard=shard), interruption))
        await print_run(stopwatch, queue)
        while await next_step():
            stopwatch = Stopwatch()
            os.kill(os.getpid(), signal.SIGUSR1)
            await print_run(stopwatch, queue)
        interruption.stop.set()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--shard", type=Shard.parse)
    options = parser.parse_args()
    asyncio.run(run(options.config, options.shard))


if __name__ == "__main__":
    main()
