"""keysync and three scripts with the same task, in turn against one emulator: ``python -m tests.benchmarks.compare --help``."""

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
from tests.benchmarks.programs import Program, environment, open_steps, programs, run_process
from tests.benchmarks.scripts.stages import KEYS
from tests.benchmarks.tables import machine, publish, table

KINDS = ("a run of a running process", "a process for one run")
STATES = ("nothing changed", "every key changed")
_SETTLE_SECONDS = 2.1
"""keysync reads secrets again that were written less than two seconds before; see keysync/targets/cache.py."""


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds, the number of requests, and the peak resident memory in KiB."""

    wall: float
    cpu: float
    requests: int
    peak: int


@dataclass(frozen=True)
class Median:
    """The medians of several `Cost`, and how many there were (`turns`)."""

    wall: float
    cpu: float
    requests: float
    peak: float
    turns: int

    @classmethod
    def of(cls, costs: Sequence[Cost]) -> Median:
        """The medians of one or more costs."""
        wall, cpu, requests, peak = (
            statistics.median(getattr(cost, name) for cost in costs) for name in ("wall", "cpu", "requests", "peak")
        )
        return cls(wall, cpu, requests, peak, len(costs))


Case = tuple[str, str, str]
"""The kind, the state and the program's name."""


class Measured(Protocol):
    """The measurements that a run and a process have in common."""

    @property
    def wall(self) -> float: ...
    @property
    def cpu(self) -> float: ...
    @property
    def peak(self) -> int: ...


@dataclass
class Meter:
    """Measures programs against one emulator, and checks that each did its work."""

    azure: Running
    costs: dict[Case, list[Cost]] = field(default_factory=lambda: defaultdict(list))

    def turn(self, program: Program, env: Mapping[str, str]) -> None:
        """Measure all cases of one program."""
        if program.remembers:
            # The scripts wrote last, and copied the tags: keysync would list the versions of each secret once.
            self.azure.regenerate()
            run_process(program.once, env)
            time.sleep(_SETTLE_SECONDS)
        for state in STATES:
            self._measure((KINDS[1], state, program.name), lambda: run_process(program.once, env))
        with open_steps(program.steps, env) as steps:
            steps.ready()
            if program.remembers:
                self.azure.regenerate()
                steps.one_run()
                time.sleep(_SETTLE_SECONDS)
                steps.one_run()
            for state in STATES:
                self._measure((KINDS[0], state, program.name), steps.one_run)

    def _measure(self, case: Case, work: Callable[[], Measured]) -> None:
        changed = case[1] == STATES[1]
        if changed:
            self.azure.regenerate()
        versions, before = self.azure.versions(), sum(self.azure.counts().values())
        measured = work()
        requests = sum(self.azure.counts().values()) - before
        written, expected = self.azure.versions() - versions, changed * len(KEYS) * self.azure.fleet.accounts
        if written != expected:
            raise RuntimeError(f"{case}: {written} secrets were written, not {expected}")
        self.costs[case].append(Cost(measured.wall, measured.cpu, requests, measured.peak))
        print(
            f"{measured.wall:7.2f} s  {measured.cpu:6.2f} s CPU  {requests:5} requests  {', '.join(case)}",
            file=sys.stderr,
        )


def measure(fleet: Fleet, latency: float, repeat: int) -> Mapping[Case, Median]:
    """The medians of `repeat` rounds, each with a new emulator. The order of the programs rotates."""
    costs: dict[Case, list[Cost]] = defaultdict(list)
    for turn in range(repeat):
        with TemporaryDirectory() as folder, running(fleet, latency=latency) as azure:
            compared, meter = programs(Path(folder), azure), Meter(azure, costs)
            env = environment(azure.ready["ca_bundle"])
            first = turn % len(compared)
            for program in (*compared[first:], *compared[:first]):
                if turn < program.most:
                    meter.turn(program, env)
    return {case: Median.of(measured) for case, measured in costs.items()}


def rows(medians: Mapping[Case, Median], kind: str, state: str, accounts: int) -> Sequence[Sequence[str]]:
    """The rows of one table: the cost of each program, and its ratio to the cost of keysync."""
    by_program = {case[2]: median for case, median in medians.items() if case[:2] == (kind, state)}
    base = by_program["keysync"]
    return [
        (
            name,
            f"{median.wall:.2f} s ({median.wall / base.wall:.1f})",
            f"{median.cpu:.2f} s ({median.cpu / base.cpu:.1f})",
            f"{1000 * median.cpu / accounts:.2f} ms",
            f"{median.requests:,.0f} ({median.requests / base.requests:.1f})",
            f"{median.requests / accounts:.2f}",
            f"{median.peak / 1024:.0f} MB ({median.peak / base.peak:.1f})",
        )
        for name, median in sorted(by_program.items(), key=lambda item: item[0] != "keysync")
    ]


def report(medians: Mapping[Case, Median], fleet: Fleet, latency: float) -> str:
    """All tables, in Markdown."""
    turns = sorted({(case[2], median.turns) for case, median in medians.items()})
    counted = ", ".join(f"{name} {count}" for name, count in turns)
    setup = f"{fleet.accounts:,} accounts in {fleet.vaults} vaults, {1000 * latency:.0f} ms latency"
    parts = [f"{setup}; {machine()}. Medians; turns: {counted}."]
    head = ("", "wall", "CPU", "CPU an account", "requests", "an account", "memory")
    for kind in KINDS:
        for state in STATES:
            parts.append(f"**{kind[0].upper()}{kind[1:]}, {state}**")
            parts.append(table(head, rows(medians, kind, state, fleet.accounts)))
    return "\n\n".join(parts)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=200)
    parser.add_argument("--vaults", type=int, default=4)
    parser.add_argument("--subscriptions", type=int, default=10)
    parser.add_argument("--latency", type=duration, default=0.04)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the tables in this document")
    options = parser.parse_args()
    fleet = Fleet(options.accounts, options.vaults, options.subscriptions, in_sync=True)
    publish("compare", report(measure(fleet, options.latency, options.repeat), fleet, options.latency), options.write)


if __name__ == "__main__":
    main()
