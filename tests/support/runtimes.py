"""A configuration, opened as the commands open it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from keysync.azure.client_factory import ClientFactory
from keysync.cli.compose import open_clients, open_runtime
from keysync.config.model import Config
from keysync.secret.redact import Redactor
from keysync.sync.runtime import Runtime, Shared


@asynccontextmanager
async def opened(config: Config, shared: Shared | None = None) -> AsyncIterator[tuple[ClientFactory, Runtime]]:
    """The clients and the runtime of `config`. It serves the accounts under `accounts`."""
    async with AsyncExitStack() as stack:
        shared = shared or Shared(Redactor())
        clients = await open_clients(stack, config, shared.redactor)
        runtime = await open_runtime(stack, clients, shared)
        await runtime.cover(runtime.inventory)
        yield clients, runtime
