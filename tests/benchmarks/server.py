"""The embedded Azure with a fleet in it: ``python -m tests.benchmarks.server FLEET READY [--latency SECONDS] [--limits]``.

`keysync emulator` would do, but for its data file: a hundred thousand accounts as YAML take minutes to read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from keysync.emulator import Emulator, EmulatorData
from tests.benchmarks.fleets import Fleet


async def serve(data: EmulatorData, ready: Path, *, latency: float, limits: bool) -> None:
    """Serves until stdin is closed, be it that whoever started it is gone; `ready` is there once it does."""
    async with Emulator(data, latency=latency, limits=limits) as azure:
        unfinished = ready.with_suffix(".part")
        unfinished.write_bytes(azure.endpoints.ready_file())
        unfinished.rename(ready)
        await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fleet", type=json.loads, help="the fields of a Fleet")
    parser.add_argument("ready", type=Path)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--limits", action="store_true")
    given = parser.parse_args()
    data = EmulatorData.model_validate(Fleet(**given.fleet).data())
    asyncio.run(serve(data, given.ready, latency=given.latency, limits=given.limits))


if __name__ == "__main__":
    main()
