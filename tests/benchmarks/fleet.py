"""A hundred thousand accounts over shards, all at work at the same time: ``python -m tests.benchmarks.fleet --help``.

Everything is real but Azure: each shard is a daemon in a process of its own, and discovers the accounts; Azure is one process
with its limits on, so that the shards share what a subscription and a vault grant, as they would. Time is real too. A virtual
clock would leave out the one thing that shards are for, the processor; and shards run one after another would each find full
buckets. The price: where the shards and the embedded Azure need all of this machine's processor, it and not Azure bounds a run.
The table says how much of it was in use.
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

from keysync.sources.shard import Shard, _weight
from tests.benchmarks import bounds
from tests.benchmarks.azure import Running, duration, running
from tests.benchmarks.fleets import Fleet, write_config
from tests.benchmarks.programs import Steps, environment, stepping
from tests.benchmarks.scripts.stages import Timed
from tests.benchmarks.tables import machine, table, told

_SAMPLE = 500


@dataclass(frozen=True)
class SyncRun:
    """One run of all shards: wall seconds until the last was done, requests, those answered with 429, and each shard's own.

    `busy` is the share of the machine's processor that was in use, of 1.
    """

    wall: float
    requests: int
    refused: int
    busy: float
    shards: Sequence[Timed]


# Shares


def owner(resource_id: str, count: int) -> int:
    """The shard of an account, as `Shard.has` decides, without asking each."""
    return max(range(count), key=lambda index: _weight(resource_id.lower(), index))


def shares(fleet: Fleet, count: int) -> Sequence[int]:
    """How many accounts each shard has. Raises RuntimeError where `owner` is another than the product's."""
    found = [0] * count
    for number in range(fleet.accounts):
        mine = owner(fleet.resource_id(number), count)
        if number < _SAMPLE and not Shard(mine, count).has(fleet.resource_id(number)):
            raise RuntimeError("the shards are shared out by another rule")
        found[mine] += 1
    return found


def moved(fleet: Fleet, count: int) -> int:
    """How many accounts move when one shard is added: those of the new one, since no other can win any."""
    return sum(Shard(count, count + 1).has(fleet.resource_id(number)) for number in range(fleet.accounts))


def shares_table(fleet: Fleet, counts: Sequence[int]) -> str:
    """How even the shares are, and what growing moves."""
    rows = []
    for count in counts:
        found = shares(fleet, count)
        share = f"{moved(fleet, count) / fleet.accounts:.2%} (1/{count + 1} is {1 / (count + 1):.2%})"
        rows.append(
            (str(count), f"{min(found):,}", f"{max(found):,}", f"{max(found) * count / fleet.accounts:.3f}", share)
        )
    head = ("shards", "smallest", "largest", "largest by mean", "moved by one more")
    return f"{fleet.accounts:,} accounts.\n\n{table(head, rows)}"


# Bounds


def bounds_table(accounts: int, places: Sequence[tuple[int, int]]) -> str:
    """What Azure's limits make of so many accounts, by numbers of subscriptions and vaults."""
    rows = []
    for subscriptions, vaults in places:
        fleet = Fleet(accounts, vaults, subscriptions)
        keys, reads, writes = bounds.list_keys(fleet), bounds.reads(fleet), bounds.writes(fleet)
        told_as = (f"{seconds:,.0f} s" for seconds in (keys, max(keys, reads), max(keys, writes)))
        rows.append((f"{subscriptions:,}", f"{vaults:,}", *told_as))
    head = ("subscriptions", "vaults", "steady run", "run that reads every value", "run that writes every key")
    return f"{accounts:,} accounts, evenly spread, one principal.\n\n{table(head, rows)}"


# Runs


def all_at_once(azure: Running, begin: Callable[[], None], shards: Sequence[Steps]) -> SyncRun:
    """Lets something begin and waits until every shard has told of its run."""
    counts, refused = sum(azure.counts().values()), azure.statuses().get("429", 0)
    busy, watch = _busy_seconds(), time.monotonic()
    begin()
    timed = [shard.end() for shard in shards]
    wall = time.monotonic() - watch
    share = (_busy_seconds() - busy) / wall / (os.cpu_count() or 1)
    requests = sum(azure.counts().values()) - counts
    return SyncRun(wall, requests, azure.statuses().get("429", 0) - refused, share, timed)


def _busy_seconds() -> float:
    """CPU seconds that the machine has worked since it started, on all cores."""
    user, nice, system, _idle, _waiting, *interrupts = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:8]
    )
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def runs(fleet: Fleet, count: int, latency: float) -> Mapping[str, SyncRun]:
    """The first run and a steady one of `count` shards, each with full buckets."""
    with TemporaryDirectory() as folder, running(fleet, latency=latency, limits=True) as azure:
        config = Path(folder, "keysync.yaml")
        # Where the processor is what all wait for, nobody is to be given up for it, nor others begun in its place.
        own = {"schedule": {"every": "6h"}, "listen": "127.0.0.1:0", "timeouts": {"account": "1h", "collect": "10m"}}
        write_config(config, azure.document(discover=True, **own))
        env, shards = environment(azure.ready["ca_bundle"]), list[Steps]()
        # Azure does not slow down because its callers are busy: the embedded one has the processor first.
        daemon = ["nice", "-n", "10", sys.executable, "-m", "tests.benchmarks.scripts.daemon", str(config), "--shard"]
        with ExitStack() as stack:

            def start() -> None:
                for index in range(count):
                    shards.append(stack.enter_context(stepping([*daemon, f"{index}/{count}"], env)))

            def go() -> None:
                for shard in shards:
                    shard.go()

            found = {"first": all_at_once(azure, start, shards)}
            print(f"{count} shards, first run: {found['first'].wall:.1f} s", file=sys.stderr)
            time.sleep(bounds.refill_seconds(fleet))
            found["steady"] = all_at_once(azure, go, shards)
            print(f"{count} shards, steady run: {found['steady'].wall:.1f} s", file=sys.stderr)
            return found


def passes_table(fleet: Fleet, found: Mapping[int, Mapping[str, SyncRun]], latency: float) -> str:
    """All runs."""
    rows = []
    for count, by_name in found.items():
        for name, one in by_name.items():
            cpu, peak = max(shard.cpu for shard in one.shards), max(shard.peak for shard in one.shards)
            rows.append(
                (
                    str(count),
                    name,
                    f"{one.wall:.0f} s",
                    f"{one.requests:,} ({one.requests / fleet.accounts:.2f} an account)",
                    f"{one.refused:,}",
                    f"{cpu:.1f} s",
                    f"{peak / 1024:.0f} MB",
                    f"{one.busy:.0%}",
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
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--vaults", type=int, default=200)
    parser.add_argument("--subscriptions", type=int, default=50)
    parser.add_argument("--latency", type=duration, default=0.04)
    parser.add_argument("--shards", type=int, nargs="*", default=[10], help="how many, one run for each number")
    parser.add_argument(
        "--shares", type=int, nargs="*", default=[3, 10, 20, 50], help="numbers of shards to count shares for"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this document")
    given = parser.parse_args()
    fleet = Fleet(given.accounts, given.vaults, given.subscriptions, in_sync=True)
    told("bounds", bounds_table(given.accounts, [(20, 100), (50, 200), (100, 200), (200, 400)]), given.write)
    if given.shares:
        told("shares", shares_table(fleet, given.shares), given.write)
    if given.shards:
        found = {count: runs(fleet, count, given.latency) for count in given.shards}
        told("fleet", passes_table(fleet, found, given.latency), given.write)


if __name__ == "__main__":
    main()
