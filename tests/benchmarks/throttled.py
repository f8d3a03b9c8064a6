"""A run whose time is bounded by Azure's limits: `python -m tests.benchmarks.throttled --help`."""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.azure import Running, duration, running
from tests.benchmarks.bounds import list_keys, refill_seconds
from tests.benchmarks.fleets import Fleet
from tests.benchmarks.steady import one_run, shared
from tests.benchmarks.tables import machine, publish, table
from tests.support.runtimes import opened

_RUNS = ("first: every value is read", "steady: the vaults are listed")


async def measure(azure: Running) -> Sequence[Sequence[str]]:
    """Measure two runs without changes, each with full buckets: one that reads every value, and one that lists the vaults."""
    config = azure.config(timeouts={"collect": "5m", "account": "15m"})
    least = list_keys(azure.fleet)
    rows: list[tuple[str, ...]] = []
    async with opened(config, shared()) as (_, runtime):
        for name in _RUNS:
            before = azure.statuses().get("429", 0)
            cost = await one_run(runtime, azure)
            refused = azure.statuses().get("429", 0) - before
            resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            ratio = f" ({cost.wall / least:.2f} of the bound)" if least else ""
            per_account = f" ({cost.total / azure.fleet.accounts:.2f} an account)"
            cells = (f"{cost.wall:.1f} s{ratio}", f"{cost.total:,}{per_account}", f"{refused:,}")
            rows.append((name, *cells, f"{cost.cpu:.1f} s", f"{resident:.0f} MB"))
            print(*rows[-1], sep="  ", file=sys.stderr)
            await asyncio.sleep(refill_seconds(azure.fleet))
    return rows


def report(fleet: Fleet, latency: float, rows: Sequence[Sequence[str]]) -> str:
    """The table, in Markdown."""
    size = f"{fleet.accounts:,} accounts in {fleet.subscriptions} subscriptions and {fleet.vaults} vaults"
    bound = f"{1000 * latency:.0f} ms latency; Azure's bound is {list_keys(fleet):.0f} s; {machine()}."
    head = ("run", "time", "requests", "answered with 429", "CPU", "memory")
    return f"{size}, {bound}\n\n{table(head, rows)}"


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--vaults", type=int, default=20)
    parser.add_argument("--subscriptions", type=int, default=10)
    parser.add_argument("--latency", type=duration, default=0.04)
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the table in this document")
    options = parser.parse_args()
    fleet = Fleet(options.accounts, options.vaults, options.subscriptions, in_sync=True)
    with running(fleet, latency=options.latency, limits=True) as azure:
        rows = asyncio.run(measure(azure))
    publish("throttled", report(fleet, options.latency, rows), options.write)


if __name__ == "__main__":
    main()
