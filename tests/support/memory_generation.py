"""A configuration of the daemon over accounts and vaults in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from keysync.config.model import Account, Config
from keysync.secret.redact import Redactor
from keysync.sources.discovery import Inventory
from keysync.sync.observers import RunObserver
from keysync.sync.run import SyncRun
from keysync.sync.runtime import OpenCredential, Shared
from tests.support.runs import World
from tests.support.settings import config_of as settled

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
_TURNS = 200


def config_of(*names: str, vaults: Sequence[str] = ("main",), accounts: dict[str, Any] | None = None, **more: Any) -> Config:  # fmt: skip
    """A configuration of the accounts of `tests.support.runs`; `accounts` adds fields to each of them."""
    common = {"subscription_id": SUBSCRIPTION, "resource_group": "g", "vaults": list(vaults), **(accounts or {})}
    return settled(
        {
            "vaults": {name: {"url": f"https://{name}.vault.azure.net"} for name in vaults},
            "accounts": [{**common, "name": name} for name in names],
            **more,
        }
    )


async def until(condition: Callable[[], bool]) -> None:
    """Runs the loop until `condition` is true; fails after ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # no event signals it
            await asyncio.sleep(0)


async def turns() -> None:
    """Lets every task continue that is ready."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class MemoryGeneration:
    """Stands in for a `Runtime`, over a world in memory: `made` lists the accounts of each run, with the number of busy ones.

    `breaks` makes the next run raise after its start; `on_close` is called when it is closed.
    """

    def __init__(self, world: World, config: Config, observer: RunObserver) -> None:
        self.world = world
        self.config = config
        self.observer = observer
        self.shared = Shared(Redactor())
        self.inventory = Inventory(config.accounts)
        self.credentials: Callable[[], Sequence[OpenCredential]] = tuple
        self.made: list[tuple[tuple[str, ...], int]] = []
        self.closed = 0
        self.breaks: Exception | None = None
        self.on_close: Callable[[], None] = lambda: None
        self.run_options: dict[str, Any] = {"collect_seconds": 0.01}

    @property
    def accounts(self) -> tuple[Account, ...]:
        """All of the configuration."""
        return self.config.accounts

    def make_run(self, accounts: Sequence[Account], *, busy: int, patience: float) -> SyncRun:  # the protocol's
        """Makes a run over `accounts`."""
        self.made.append((tuple(account.name for account in accounts), busy))
        names = {account.resource_id.lower() for account in accounts}
        job = self.world.job(**self.run_options)
        observer: RunObserver = self.observer
        if self.breaks is not None:
            observer, self.breaks = _Breaking(self.observer, self.breaks), None
        work_items = [work for work in job.work_items if work.account.lower() in names]
        return replace(job, work_items=work_items, observers=(observer,), busy=busy)

    async def close(self) -> None:
        """Counts the call."""
        self.on_close()
        self.closed += 1


class _Breaking:
    """An observer that raises when the run reports a result."""

    def __init__(self, inner: RunObserver, error: Exception) -> None:
        self._inner = inner
        self._error = error
        self.started = inner.started
        self.collected = inner.collected

    def result(self, *_: object) -> None:
        """Raises, like a bug of keysync in the middle of a run."""
        raise self._error

    def finished(self, *_: object) -> None:
        """Never reached."""
