"""How long a process takes to start, and a one-off sync of one account: ``python -m tests.benchmarks.start --help``."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.azure import running
from tests.benchmarks.fleets import Fleet, write_config
from tests.benchmarks.programs import Took, environment, whole
from tests.benchmarks.tables import machine, table, told

_IMPORTS = "import azure.mgmt.batch.aio, azure.keyvault.secrets.aio, azure.identity.aio, aiohttp"
_BASE = "the two SDKs, azure-identity and aiohttp imported"
_KEYSYNC = (sys.executable, "-m", "keysync")


def commands(config: Path) -> Mapping[str, Sequence[str]]:
    """What is measured, by what it is called."""
    return {
        "Python, nothing imported": (sys.executable, "-c", "pass"),
        _BASE: (sys.executable, "-c", _IMPORTS),
        "`keysync --version`": (*_KEYSYNC, "--version"),
        "`keysync --help`": (*_KEYSYNC, "--help"),
        "`keysync sync`, one account, nothing changed": (*_KEYSYNC, "sync", "-c", str(config)),
    }


def measure(repeat: int) -> Mapping[str, Sequence[Took]]:
    """Each command in turn, `repeat` times after a first time that does not count: it compiles what has to be compiled."""
    with TemporaryDirectory() as folder, running(Fleet(1, 1, in_sync=True)) as azure:
        config = Path(folder, "keysync.yaml")
        write_config(config, azure.document())
        known, env = commands(config), environment(azure.ready["ca_bundle"])
        rounds = [{name: whole(command, env) for name, command in known.items()} for _ in range(repeat + 1)]
    return {name: [one[name] for one in rounds[1:]] for name in known}


def report(took: Mapping[str, Sequence[Took]]) -> str:
    """The whole of it, in Markdown."""

    def median(name: str, what: str) -> float:
        return float(statistics.median(getattr(one, what) for one in took[name]))

    base = median(_BASE, "wall")
    rows = [
        (
            name,
            f"{median(name, 'wall'):.3f} s ({median(name, 'wall') / base:.2f})",
            f"{median(name, 'cpu'):.3f} s",
            f"{median(name, 'peak') / 1024:.0f} MB",
        )
        for name in took
    ]
    caption = f"Medians of {len(took[_BASE])}, no latency; {machine()}."
    return f"{caption}\n\n{table(('a process', 'wall', 'CPU', 'memory'), rows)}"


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=11)
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this document")
    given = parser.parse_args()
    told("start", report(measure(given.repeat)), given.write)


if __name__ == "__main__":
    main()
