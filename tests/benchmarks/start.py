"""The time to start a process, and for a one-off sync of one account: ``python -m tests.benchmarks.start --help``."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.azure import running
from tests.benchmarks.fleets import Fleet, write_config
from tests.benchmarks.programs import ProcessCost, environment, run_process
from tests.benchmarks.tables import machine, publish, table

_IMPORTS = "import azure.mgmt.batch.aio, azure.keyvault.secrets.aio, azure.identity.aio, aiohttp"
_BASE = "the two SDKs, azure-identity and aiohttp imported"
_KEYSYNC = (sys.executable, "-m", "keysync")


def commands(config: Path) -> Mapping[str, Sequence[str]]:
    """The measured commands by name."""
    return {
        "Python, nothing imported": (sys.executable, "-c", "pass"),
        _BASE: (sys.executable, "-c", _IMPORTS),
        "`keysync --version`": (*_KEYSYNC, "--version"),
        "`keysync --help`": (*_KEYSYNC, "--help"),
        "`keysync sync`, one account, nothing changed": (*_KEYSYNC, "sync", "-c", str(config)),
    }


def measure(repeat: int) -> Mapping[str, Sequence[ProcessCost]]:
    """Run the commands in turn, `repeat` times. An additional first round compiles the bytecode and is not counted."""
    with TemporaryDirectory() as folder, running(Fleet(1, 1, in_sync=True)) as azure:
        config = Path(folder, "keysync.yaml")
        write_config(config, azure.document())
        measured, env = commands(config), environment(azure.ready["ca_bundle"])
        rounds = [{name: run_process(command, env) for name, command in measured.items()} for _ in range(repeat + 1)]
    return {name: [costs[name] for costs in rounds[1:]] for name in measured}


def report(costs: Mapping[str, Sequence[ProcessCost]]) -> str:
    """The table, in Markdown."""

    def median(name: str, field: str) -> float:
        return float(statistics.median(getattr(cost, field) for cost in costs[name]))

    base = median(_BASE, "wall")
    rows = [
        (
            name,
            f"{median(name, 'wall'):.3f} s ({median(name, 'wall') / base:.2f})",
            f"{median(name, 'cpu'):.3f} s",
            f"{median(name, 'peak') / 1024:.0f} MB",
        )
        for name in costs
    ]
    caption = f"Medians of {len(costs[_BASE])}, no latency; {machine()}."
    return f"{caption}\n\n{table(('a process', 'wall', 'CPU', 'memory'), rows)}"


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=11)
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the table in this document")
    options = parser.parse_args()
    publish("start", report(measure(options.repeat)), options.write)


if __name__ == "__main__":
    main()
