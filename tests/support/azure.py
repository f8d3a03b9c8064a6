"""The embedded Azure for tests, in its own thread, so that a test can run commands beside it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from keysync.emulator import Emulator, EmulatorData

T = TypeVar("T")

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
GROUP = "render-group"
QUICK = {"recover_delay": 0.3, "delete_delay": 0.0}
"""Delays of vaults, shorter than Azure's, so that tests do not wait."""


def data(*accounts: dict[str, Any] | str, vaults: tuple[Any, ...] = ("main",)) -> EmulatorData:
    """Accounts by name (or by a mapping that adds to the common fields), and vaults by name or mapping."""
    common = {"subscription_id": SUBSCRIPTION, "resource_group": GROUP, "location": "japaneast"}
    entries = [{**common, **({"name": account} if isinstance(account, str) else account)} for account in accounts]
    stores = [{**QUICK, **({"name": vault} if isinstance(vault, str) else vault)} for vault in vaults]
    return EmulatorData.model_validate({"accounts": entries, "vaults": stores})


class RunningAzure:
    """A running embedded Azure; `do` runs a function on its event loop, which owns its state."""

    def __init__(self, azure: Emulator, loop: asyncio.AbstractEventLoop) -> None:
        self.azure = azure
        self._loop = loop

    def do(self, action: Callable[[Emulator], T]) -> T:
        """Runs `action` between two requests and returns its result."""

        async def run() -> T:
            return action(self.azure)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    @property
    def environ(self) -> dict[str, str]:
        """Azure's own variables for the credential kind `environment`."""
        endpoints = self.azure.endpoints
        return {
            "AZURE_TENANT_ID": endpoints.tenant_id,
            "AZURE_CLIENT_ID": endpoints.client_id,
            "AZURE_CLIENT_SECRET": endpoints.client_secret,
        }


@contextmanager
def running_azure(content: EmulatorData, **options: Any) -> Iterator[RunningAzure]:
    """Serves `content` until the block ends."""
    started: threading.Event = threading.Event()
    box: dict[str, Any] = {}

    async def serve() -> None:
        box["stop"] = asyncio.Event()
        box["loop"] = asyncio.get_running_loop()
        try:
            async with Emulator(content, **options) as azure:
                box["azure"] = azure
                started.set()
                await box["stop"].wait()
        finally:
            started.set()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="embedded Azure")
    thread.start()
    try:
        assert started.wait(20)
        yield RunningAzure(box["azure"], box["loop"])
    finally:
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join(20)
        assert not thread.is_alive()
