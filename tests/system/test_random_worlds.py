"""Random worlds against an oracle.

It asserts: no wrong value, no write to an unmanaged secret, one version for each value, and everything in sync at the
end. KEYSYNC_WORLD_SEED=7-123 replays one world.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

import pytest

from tests.support.faulty_worlds import FaultyWorld, config_for, emulator_of
from tests.support.warp import Warp, WarpLoop

CHUNKS: Final = 40
WORLDS_IN_A_CHUNK: Final = 50


def run_worlds(folder: Path, seeds: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs one world for each seed. Raises AssertionError that names the seed of the first failure."""
    warp, offset = Warp(), [0.0]

    async def worlds() -> None:
        async with emulator_of(lambda: warp.wall() + offset[0]) as azure:
            # Reading the system's CAs for each process would take longer than a world.
            monkeypatch.setenv("SSL_CERT_FILE", azure.endpoints.ca_bundle)
            config = config_for(azure, folder)
            for seed in seeds:
                try:
                    await FaultyWorld(azure, config, seed, offset).run()
                except Exception as error:
                    raise AssertionError(f"KEYSYNC_WORLD_SEED={seed}: {error!r}") from error

    with warp.installed(), asyncio.Runner(loop_factory=lambda: WarpLoop(warp)) as runner:
        runner.run(worlds())


def seeds_of(chunk: str, count: int) -> list[str]:
    """The seeds of a chunk, or the one to replay."""
    chosen = os.environ.get("KEYSYNC_WORLD_SEED")
    return [chosen] if chosen else [f"{chunk}-{number}" for number in range(count)]


def test_a_sample_of_random_worlds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty worlds that are the same each time."""
    run_worlds(tmp_path, seeds_of("quick", 30), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_two_thousand_random_worlds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """With a second writer, faults, misrouted replies, late writes, stale reads and wrong clocks."""
    run_worlds(tmp_path, seeds_of(str(chunk), WORLDS_IN_A_CHUNK), monkeypatch)
