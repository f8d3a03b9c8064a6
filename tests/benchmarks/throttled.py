"""A run over a fleet that Azure's limits bound: `python -m tests.benchmarks.throttled --help`."""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from keysync.cli.compose import open_app
from keysync.secret.redact import Redactor
from tests.benchmarks.azure import Running, duration, running
from tests.benchmarks.bounds import list_keys, refill_seconds
from tests.benchmarks.fleets import Fleet
from tests.benchmarks.steady import one_run
from tests.benchmarks.tables import machine, table, told

_RUNS = ("first: every value is read", "steady: the vaults are listed")


async def measure(azure: Running) -> Sequence[Sequence[str]]:
    """Two runs in which nothing changes, each with full buckets: one that reads every value, one that lists the vaults."""
    config = azure.config(timeouts={"collect": "5m", "account": "15m"})
    least = list_keys(azure.fleet)
    rows = []
    async with open_app(config, config.accounts, Redactor(), lambda _operation, _status: None) as app:
        for name in _RUNS:
            before = azure.statuses().get("429", 0)
            measured = await one_run(app, azure)
            refused = azure.statuses().get("429", 0) - before
            resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            over = f" ({measured.wall / least:.2f} of the bound)" if least else ""
            each = f" ({measured.total / azure.fleet.accounts:.2f} an account)"
            cells = (f"{measured.wall:.1f} s{over}", f"{measured.total:,}{each}", f"{refused:,}")
            rows.append((name, *cells, f"{measured.cpu:.1f} s", f"{resident:.0f} MB"))
            print(*rows[-1], sep="  ", file=sys.stderr)
            await asyncio.sleep(refill_seconds(azure.fleet))
    return rows


def report(fleet: Fleet, latency: float, rows: Sequence[Sequence[str]]) -> str:
    """All of it, in Markdown."""
    what = f"{fleet.accounts:,} accounts in {fleet.subscriptions} subscriptions and {fleet.vaults} vaults"
    bound = f"{1000 * latency:.0f} ms latency; Azure's bound is {list_keys(fleet):.0f} s; {machine()}."
    head = ("run", "time", "requests", "answered with 429", "CPU", "memory")
    return f"{what}, {bound}\n\n{table(head, rows)}"


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--vaults", type=int, default=20)
    parser.add_argument("--subscriptions", type=int, default=10)
    parser.add_argument("--latency", type=duration, default=0.04)
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this document")
    given = parser.parse_args()
    fleet = Fleet(given.accounts, given.vaults, given.subscriptions, in_sync=True)
    with running(fleet, latency=given.latency, limits=True) as azure:
        rows = asyncio.run(measure(azure))
    told("throttled", report(fleet, given.latency, rows), given.write)


if __name__ == "__main__":
    main()
