"""100,000 accounts over shards that run at the same time: ``python -m tests.benchmarks.fleet --help``.

Only Azure is emulated. Each shard is a daemon in its own process, and discovers the accounts. The emulator is one process
with limits on, so that the shards share the limits of subscriptions and vaults. Time is real: a virtual clock would hide the
CPU load, which is the reason for shards, and shards that run one after the other would each start with full buckets. If the
shards and the emulator need the whole CPU of this machine, it bounds a run, and not Azure. The table shows the CPU load.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from keysync.sources.shard import Shard, rendezvous_weight
from tests.benchmarks import bounds
from tests.benchmarks.azure import Running, duration, running
from tests.benchmarks.fleets import Fleet, write_config
from tests.benchmarks.programs import Steps, environment, open_steps
from tests.benchmarks.scripts.stages import Timed
from tests.benchmarks.tables import machine, publish, table

_SAMPLE = 500


@dataclass(frozen=True)
class ShardedRun:
    """One run of all shards: wall seconds until the last one ended, requests, replies with 429, and the times of each shard.

    `busy` is the CPU load of the machine, from 0 to 1.
    """

    wall: float
    requests: int
    refused: int
    busy: float
    shards: Sequence[Timed]


# Shares


def owner_of(resource_id: str, count: int) -> int:
    """The index of an account's shard, by the rule of `Shard.has`, but without a call for each shard."""
    return max(range(count), key=lambda index: rendezvous_weight(resource_id.lower(), index))


def shares(fleet: Fleet, count: int) -> Sequence[int]:
    """The number of accounts of each shard. Raises RuntimeError if `owner_of` disagrees with `Shard.has`."""
    numbers = [0] * count
    for number in range(fleet.accounts):
        index = owner_of(fleet.resource_id(number), count)
        if number < _SAMPLE and not Shard(index, count).has(fleet.resource_id(number)):
            raise RuntimeError("owner_of and Shard.has disagree")
        numbers[index] += 1
    return numbers


def moved(fleet: Fleet, count: int) -> int:
    """The number of accounts that move when one shard is added. They all move to the new one."""
    return sum(Shard(count, count + 1).has(fleet.resource_id(number)) for number in range(fleet.accounts))


def shares_table(fleet: Fleet, counts: Sequence[int]) -> str:
    """The balance of the shares, and the accounts that a further shard moves."""
    rows = []
    for count in counts:
        numbers = shares(fleet, count)
        share = f"{moved(fleet, count) / fleet.accounts:.2%} (1/{count + 1} is {1 / (count + 1):.2%})"
        rows.append(
            (
                str(count),
                f"{min(numbers):,}",
                f"{max(numbers):,}",
                f"{max(numbers) * count / fleet.accounts:.3f}",
                share,
            )
        )
    head = ("shards", "smallest", "largest", "largest by mean", "moved by one more")
    return f"{fleet.accounts:,} accounts.\n\n{table(head, rows)}"


# Bounds


def bounds_table(accounts: int, layouts: Sequence[tuple[int, int]]) -> str:
    """The shortest times for `accounts` accounts, by numbers of subscriptions and vaults."""
    rows = []
    for subscriptions, vaults in layouts:
        fleet = Fleet(accounts, vaults, subscriptions)
        keys, reads, writes = bounds.list_keys(fleet), bounds.reads(fleet), bounds.writes(fleet)
        cells = (f"{seconds:,.0f} s" for seconds in (keys, max(keys, reads), max(keys, writes)))
        rows.append((f"{subscriptions:,}", f"{vaults:,}", *cells))
    head = ("subscriptions", "vaults", "steady run", "run that reads every value", "run that writes every key")
    return f"{accounts:,} accounts, evenly spread, one principal.\n\n{table(head, rows)}"


# Runs


def all_at_once(azure: Running, begin: Callable[[], None], shards: Sequence[Steps]) -> ShardedRun:
    """Call `begin`, then wait for the run of every shard."""
    counts, refused = sum(azure.counts().values()), azure.statuses().get("429", 0)
    busy, watch = _busy_seconds(), time.monotonic()
    begin()
    timed = [shard.end() for shard in shards]
    wall = time.monotonic() - watch
    share = (_busy_seconds() - busy) / wall / (os.cpu_count() or 1)
    requests = sum(azure.counts().values()) - counts
    return ShardedRun(wall, requests, azure.statuses().get("429", 0) - refused, share, timed)


def _busy_seconds() -> float:
    """The CPU seconds that all cores of the machine have worked since it started."""
    user, nice, system, _idle, _waiting, *interrupts = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:8]
    )
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def runs(fleet: Fleet, count: int, latency: float) -> Mapping[str, ShardedRun]:
    """The first and a steady run of `count` shards, each with full buckets."""
    with TemporaryDirectory() as folder, running(fleet, latency=latency, limits=True) as azure:
        config = Path(folder, "keysync.yaml")
        # The CPU is the bottleneck, so no account may time out, and no run may start before its end.
        settings = {
            "schedule": {"every": "6h"},
            "listen": "127.0.0.1:0",
            "timeouts": {"account": "1h", "collect": "10m"},
        }
        write_config(config, azure.document(discover=True, **settings))
        env, shards = environment(azure.ready["ca_bundle"]), list[Steps]()
        # Busy clients do not slow down the real Azure, so the emulator gets the CPU first.
        daemon = ["nice", "-n", "10", sys.executable, "-m", "tests.benchmarks.scripts.daemon", str(config), "--shard"]
        with ExitStack() as stack:

            def start() -> None:
                for index in range(count):
                    shards.append(stack.enter_context(open_steps([*daemon, f"{index}/{count}"], env)))

            def go() -> None:
                for shard in shards:
                    shard.go()

            results = {"first": all_at_once(azure, start, shards)}
            print(f"{count} shards, first run: {results['first'].wall:.1f} s", file=sys.stderr)
            time.sleep(bounds.refill_seconds(fleet))
            results["steady"] = all_at_once(azure, go, shards)
            print(f"{count} shards, steady run: {results['steady'].wall:.1f} s", file=sys.stderr)
            return results


def runs_table(fleet: Fleet, results: Mapping[int, Mapping[str, ShardedRun]], latency: float) -> str:
    """The table of all runs."""
    rows = []
    for count, by_name in results.items():
        for name, result in by_name.items():
            cpu, peak = max(shard.cpu for shard in result.shards), max(shard.peak for shard in result.shards)
            rows.append(
                (
                    str(count),
                    name,
                    f"{result.wall:.0f} s",
                    f"{result.requests:,} ({result.requests / fleet.accounts:.2f} an account)",
                    f"{result.refused:,}",
                    f"{cpu:.1f} s",
                    f"{peak / 1024:.0f} MB",
                    f"{result.busy:.0%}",
                )
            )
    head = (
        "shards",
        "run",
        "time",
        "requests",
        "answered with 429",
        "CPU of a shard",
        "memory of a shard",
        "machine in use",
    )
    caption = (
        f"{fleet.accounts:,} accounts in {fleet.subscriptions} subscriptions, {fleet.vaults} vaults, {1000 * latency:.0f} ms "
        f"latency, Azure's limits, which bound a run to {bounds.list_keys(fleet):.0f} s; {machine()}, for the shards and the "
        "embedded Azure together."
    )
    return f"{caption}\n\n{table(head, rows)}"


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--vaults", type=int, default=200)
    parser.add_argument("--subscriptions", type=int, default=50)
    parser.add_argument("--latency", type=duration, default=0.04)
    parser.add_argument(
        "--shards", type=int, nargs="*", default=[10], help="numbers of shards, with a measurement for each"
    )
    parser.add_argument(
        "--shares", type=int, nargs="*", default=[3, 10, 20, 50], help="numbers of shards whose shares are counted"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the tables in this document")
    options = parser.parse_args()
    fleet = Fleet(options.accounts, options.vaults, options.subscriptions, in_sync=True)
    publish("bounds", bounds_table(options.accounts, [(20, 100), (50, 200), (100, 200), (200, 400)]), options.write)
    if options.shares:
        publish("shares", shares_table(fleet, options.shares), options.write)
    if options.shards:
        results = {count: runs(fleet, count, options.latency) for count in options.shards}
        publish("fleet", runs_table(fleet, results, options.latency), options.write)


if __name__ == "__main__":
    main()
