"""The time, CPU time and requests of a run: `python -m tests.benchmarks.steady --help`."""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from keysync.report.metrics import Metrics
from keysync.secret.redact import Redactor
from keysync.sync.run import run_sync
from keysync.sync.runtime import Runtime, Shared
from tests.benchmarks.azure import Running, duration, running
from tests.benchmarks.fleets import Fleet
from tests.support.runtimes import opened

_UNTIL_STEADY = 3
"""Runs before the first measured one: one that writes, and two until every value is in the cache."""


@dataclass(frozen=True)
class RunCost:
    """The cost of one run: wall and CPU seconds, and requests by operation."""

    wall: float
    cpu: float
    requests: dict[str, int]

    @property
    def total(self) -> int:
        """The number of all requests."""
        return sum(self.requests.values())


def shared() -> Shared:
    """Runs with metrics, as in the daemon."""
    return Shared(Redactor(), (Metrics(CollectorRegistry()),))


async def one_run(runtime: Runtime, azure: Running) -> RunCost:
    """Do one run. Raises RuntimeError if it fails."""
    before = azure.counts()
    wall, cpu = time.perf_counter(), time.process_time()
    report = await run_sync(runtime.make_run(runtime.accounts))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if report.failed:
        raise RuntimeError(next(result.reason for result in report.results if result.outcome != "unchanged"))
    after = azure.counts()
    return RunCost(
        wall, cpu, {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    )


def print_medians(name: str, costs: Sequence[RunCost], accounts: int) -> None:
    """Print the medians of `costs`."""
    wall = statistics.median(cost.wall for cost in costs)
    cpu = statistics.median(cost.cpu for cost in costs)
    total = statistics.median(cost.total for cost in costs)
    print(
        f"{name:24} {wall:7.3f} s  {total:6.0f} requests ({total / accounts:.2f} an account)  "
        f"{cpu:6.3f} s CPU ({1000 * cpu / accounts:.2f} ms an account)  {costs[-1].requests}"
    )


async def measure(azure: Running, runs: int) -> None:
    """Measure the first run, steady runs, and runs after every key has changed."""
    config = azure.config()
    accounts = len(config.accounts)
    async with opened(config, shared()) as (_, runtime):
        print_medians("first (creates)", [await one_run(runtime, azure)], accounts)
        for _ in range(_UNTIL_STEADY - 1):
            await asyncio.sleep(2.1)
            await one_run(runtime, azure)
        print_medians("steady", [await one_run(runtime, azure) for _ in range(runs)], accounts)
        for name in ("every key changed", "every key changed again"):
            azure.regenerate()
            print_medians(name, [await one_run(runtime, azure)], accounts)
            await asyncio.sleep(2.1)
    print(f"resident at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=200)
    parser.add_argument("--vaults", type=int, default=4)
    parser.add_argument("--subscriptions", type=int, default=1)
    parser.add_argument("--unmanaged", type=int, default=0)
    parser.add_argument("--latency", type=duration, default=0.04)
    parser.add_argument("--limits", action="store_true")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    fleet = Fleet(options.accounts, options.vaults, options.subscriptions, options.unmanaged)
    with running(fleet, latency=options.latency, limits=options.limits) as azure:
        asyncio.run(measure(azure, options.runs))


if __name__ == "__main__":
    main()
