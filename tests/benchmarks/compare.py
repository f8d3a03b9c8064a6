"""keysync and three scripts that do the same, in turn against one embedded Azure: ``python -m tests.benchmarks.compare --help``."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from tests.benchmarks.azure import Running, duration, running
from tests.benchmarks.fleets import Fleet
from tests.benchmarks.programs import Program, environment, programs, stepping, whole
from tests.benchmarks.scripts.stages import KEYS
from tests.benchmarks.tables import machine, table, told

KINDS = ("a run of a running process", "a process for one run")
STATES = ("nothing changed", "every key changed")
_SETTLE_SECONDS = 2.1
"""What was written within the last two seconds keysync reads again in the next run; see keysync/targets/cache.py."""


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds, requests, and the most that was resident, in KiB."""

    wall: float
    cpu: float
    requests: int
    peak: int


@dataclass(frozen=True)
class Median:
    """Medians of several `Cost`."""

    wall: float
    cpu: float
    requests: float
    peak: float
    turns: int

    @classmethod
    def of(cls, costs: Sequence[Cost]) -> Median:
        """Of one or more."""
        wall, cpu, requests, peak = (
            statistics.median(getattr(cost, name) for cost in costs) for name in ("wall", "cpu", "requests", "peak")
        )
        return cls(wall, cpu, requests, peak, len(costs))


Case = tuple[str, str, str]
"""Kind, state, and the program's name."""


class RunMetrics(Protocol):
    """What is told of a run, and of a process."""

    @property
    def wall(self) -> float: ...
    @property
    def cpu(self) -> float: ...
    @property
    def peak(self) -> int: ...


@dataclass
class Meter:
    """Measures programs on one embedded Azure, and sees to it that each did its work."""

    azure: Running
    costs: dict[Case, list[Cost]] = field(default_factory=lambda: defaultdict(list))

    def turn(self, program: Program, env: Mapping[str, str]) -> None:
        """Everything about one program."""
        for state in STATES:
            self._measure((KINDS[1], state, program.name), lambda: whole(program.once, env))
        with stepping(program.steps, env) as steps:
            steps.ready()
            if program.remembers:
                self.azure.regenerate()
                steps.one_run()
                time.sleep(_SETTLE_SECONDS)
                steps.one_run()
            for state in STATES:
                self._measure((KINDS[0], state, program.name), steps.one_run)

    def _measure(self, case: Case, work: Callable[[], RunMetrics]) -> None:
        changed = case[1] == STATES[1]
        if changed:
            self.azure.regenerate()
        versions, before = self.azure.versions(), sum(self.azure.counts().values())
        took = work()
        requests = sum(self.azure.counts().values()) - before
        written, wanted = self.azure.versions() - versions, changed * len(KEYS) * self.azure.fleet.accounts
        if written != wanted:
            raise RuntimeError(f"{case}: {written} secrets were written, not {wanted}")
        self.costs[case].append(Cost(took.wall, took.cpu, requests, took.peak))
        print(f"{took.wall:7.2f} s  {took.cpu:6.2f} s CPU  {requests:5} requests  {', '.join(case)}", file=sys.stderr)


def measure(fleet: Fleet, latency: float, repeat: int) -> Mapping[Case, Median]:
    """Medians over `repeat` rounds, each with an Azure of its own; who is first changes from round to round."""
    costs: dict[Case, list[Cost]] = defaultdict(list)
    for turn in range(repeat):
        with TemporaryDirectory() as folder, running(fleet, latency=latency) as azure:
            known, meter = programs(Path(folder), azure), Meter(azure, costs)
            env = environment(azure.ready["ca_bundle"])
            first = turn % len(known)
            for program in (*known[first:], *known[:first]):
                if turn < program.most:
                    meter.turn(program, env)
    return {case: Median.of(found) for case, found in costs.items()}


def rows(medians: Mapping[Case, Median], kind: str, state: str, accounts: int) -> Sequence[Sequence[str]]:
    """The rows of one table: what each program took, and how many times what keysync took that is."""
    found = {case[2]: median for case, median in medians.items() if case[:2] == (kind, state)}
    base = found["keysync"]
    return [
        (
            name,
            f"{one.wall:.2f} s ({one.wall / base.wall:.1f})",
            f"{one.cpu:.2f} s ({one.cpu / base.cpu:.1f})",
            f"{1000 * one.cpu / accounts:.2f} ms",
            f"{one.requests:,.0f} ({one.requests / base.requests:.1f})",
            f"{one.requests / accounts:.2f}",
            f"{one.peak / 1024:.0f} MB ({one.peak / base.peak:.1f})",
        )
        for name, one in sorted(found.items(), key=lambda each: each[0] != "keysync")
    ]


def report(medians: Mapping[Case, Median], fleet: Fleet, latency: float) -> str:
    """The whole of it, in Markdown."""
    turns = sorted({(case[2], median.turns) for case, median in medians.items()})
    counted = ", ".join(f"{name} {count}" for name, count in turns)
    what = f"{fleet.accounts:,} accounts in {fleet.vaults} vaults, {1000 * latency:.0f} ms latency"
    parts = [f"{what}; {machine()}. Medians; turns: {counted}."]
    head = ("", "wall", "CPU", "CPU an account", "requests", "an account", "memory")
    for kind in KINDS:
        for state in STATES:
            parts.append(f"**{kind[0].upper()}{kind[1:]}, {state}**")
            parts.append(table(head, rows(medians, kind, state, fleet.accounts)))
    return "\n\n".join(parts)


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=200)
    parser.add_argument("--vaults", type=int, default=4)
    parser.add_argument("--subscriptions", type=int, default=10)
    parser.add_argument("--latency", type=duration, default=0.04)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this document")
    given = parser.parse_args()
    fleet = Fleet(given.accounts, given.vaults, given.subscriptions, in_sync=True)
    told("compare", report(measure(fleet, given.latency, given.repeat), fleet, given.latency), given.write)


if __name__ == "__main__":
    main()
