"""The emulator with a fleet: ``python -m tests.benchmarks.server FLEET READY [--latency SECONDS] [--limits]``.

`keysync emulator` is too slow here: it takes minutes to read a YAML file with 100,000 accounts.
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
    """Serve until stdin is closed, as it is when the parent process ends. The file `ready` exists once it serves."""
    async with Emulator(data, latency=latency, limits=limits) as azure:
        partial = ready.with_suffix(".part")
        partial.write_bytes(azure.endpoints.ready_file())
        partial.rename(ready)
        await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fleet", type=json.loads, help="the fields of a Fleet")
    parser.add_argument("ready", type=Path)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--limits", action="store_true")
    options = parser.parse_args()
    data = EmulatorData.model_validate(Fleet(**options.fleet).data())
    asyncio.run(serve(data, options.ready, latency=options.latency, limits=options.limits))


if __name__ == "__main__":
    main()
