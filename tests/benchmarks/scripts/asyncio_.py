"""A script with the aio SDKs and 64 calls in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from typing import TypeVar

from azure.core.exceptions import ResourceNotFoundError
from azure.identity.aio import EnvironmentCredential
from azure.keyvault.secrets import KeyVaultSecret
from azure.keyvault.secrets.aio import SecretClient
from azure.mgmt.batch.aio import BatchManagementClient

from tests.benchmarks.scripts.stages import (
    KEYS,
    Account,
    Stopwatch,
    Work,
    in_steps,
    next_step,
    ready,
    work_from_command_line,
)

IN_FLIGHT = 64

T = TypeVar("T")


class Clients:
    """A client for each subscription and for each vault."""

    def __init__(self, batch: Mapping[str, BatchManagementClient], vaults: Mapping[str, SecretClient]) -> None:
        self._batch = batch
        self._vaults = vaults
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    async def sync(self, account: Account) -> int:
        """Write the keys of one account that differ from its vault's secrets; returns how many it wrote."""
        batch = self._batch[account.subscription_id].batch_account
        keys, stored = await asyncio.gather(
            self._call(batch.get_keys(account.resource_group, account.name)),
            asyncio.gather(*(self._stored(account, key) for key in KEYS)),
        )
        different = [
            (key, before)
            for key, before in zip(KEYS, stored, strict=True)
            if before is None or before.value != getattr(keys, key)
        ]
        await asyncio.gather(*(self._write(account, key, getattr(keys, key), before) for key, before in different))
        return len(different)

    async def _write(self, account: Account, key: str, value: str, before: KeyVaultSecret | None) -> None:
        # A new version inherits nothing, so the tags are sent again.
        tags = None if before is None else before.properties.tags
        await self._call(self._vaults[account.vault].set_secret(account.secrets()[key], value, tags=tags))

    async def _stored(self, account: Account, key: str) -> KeyVaultSecret | None:
        try:
            return await self._call(self._vaults[account.vault].get_secret(account.secrets()[key]))
        except ResourceNotFoundError:
            return None

    async def _call(self, call: Awaitable[T]) -> T:
        async with self._slots:
            return await call


async def open_clients(stack: AsyncExitStack, work: Work) -> Clients:
    """Open the clients; `stack` closes them."""
    credential = await stack.enter_async_context(
        EnvironmentCredential(authority=work.authority, disable_instance_discovery=True)
    )
    batch = {
        subscription: await stack.enter_async_context(
            BatchManagementClient(
                credential, subscription, base_url=work.resource_manager, credential_scopes=[work.scope]
            )
        )
        for subscription in work.subscriptions
    }
    vaults = {
        url: await stack.enter_async_context(SecretClient(url, credential, verify_challenge_resource=False))
        for url in work.vaults
    }
    return Clients(batch, vaults)


async def one_run(clients: Clients, work: Work) -> int:
    """Sync all accounts; returns how many secrets were written."""
    return sum(await asyncio.gather(*(clients.sync(account) for account in work.accounts)))


async def run() -> None:
    """Do one run, or as many as the command line asks for."""
    work = work_from_command_line()
    async with AsyncExitStack() as stack:
        clients = await open_clients(stack, work)
        await one_run(clients, work)
        if not in_steps():
            return
        ready()
        while await next_step():
            stopwatch = Stopwatch()
            stopwatch.stop(await one_run(clients, work)).print()


def main() -> None:
    """Do one run, or as many as the command line asks for."""
    asyncio.run(run())


if __name__ == "__main__":
    main()
