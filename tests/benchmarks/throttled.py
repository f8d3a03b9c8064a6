"""A pass over a fleet that Azure's limits bound: `python -m tests.benchmarks.throttled --help`."""

from __future__ import annotations

import argparse
import asyncio
import resource

from keysync.cli.compose import wire
from keysync.secret.scrub import Scrubber
from tests.benchmarks.azure import Fleet, Running, running
from tests.benchmarks.steady import one_pass

_BURST, _RATE = 200, 10
"""What Resource Manager grants a subscription and principal: 200 writes, and 10 more each second."""


def least_seconds(fleet: Fleet) -> float:
    """The time below which no client can have asked for every account's keys."""
    largest = -(-fleet.accounts // fleet.subscriptions)
    return max(0.0, (largest - _BURST) / _RATE)


async def measure(azure: Running) -> None:
    """Two passes in which nothing changes, each with full buckets: one that reads every value, one that lists the vaults."""
    config = azure.config(timeouts={"collect": "5m", "account": "15m"})
    least = least_seconds(azure.fleet)
    async with wire(config, config.accounts, Scrubber(), lambda _operation, _status: None) as wired:
        for name in ("first (reads values)", "second (lists)"):
            before = azure.statuses()
            measured = await one_pass(wired, azure)
            refused = azure.statuses().get("429", 0) - before.get("429", 0)
            print(
                f"{name:20} {measured.wall:7.1f} s (bound by listKeys: {least:.1f} s)  {measured.total} requests, "
                f"{refused} answered with 429, {measured.cpu:.1f} s CPU"
            )
            await asyncio.sleep(_BURST / _RATE)
    print(f"resident at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--vaults", type=int, default=20)
    parser.add_argument("--subscriptions", type=int, default=10)
    parser.add_argument("--latency", default="40ms")
    given = parser.parse_args()
    fleet = Fleet(given.accounts, given.vaults, given.subscriptions, in_step=True)
    with running(fleet, "--latency", given.latency, "--limits", "azure") as azure:
        asyncio.run(measure(azure))


if __name__ == "__main__":
    main()
