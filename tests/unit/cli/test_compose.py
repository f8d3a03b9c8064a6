"""A process with a shard serves its own accounts, and its search for orphans knows those of other shards."""

from __future__ import annotations

from typing import Any

import pytest

from keysync.config.model import Config
from keysync.secret.redact import Redactor
from keysync.sources.shard import Shard
from keysync.sync.inventory import resolve
from keysync.sync.orphans import OrphanSearch
from keysync.sync.runtime import Shared
from tests.support.runtimes import opened
from tests.support.settings import config_of

SUB = "11111111-2222-3333-4444-555555555555"
NAMES = [f"account{number}" for number in range(8)]
SHARD = Shard(0, 2)


def config(**more: Any) -> Config:
    """Two vaults and listed accounts, which need no request."""
    accounts = [{"subscription_id": SUB, "resource_group": "rg", "name": name, "vaults": ["main"]} for name in NAMES]
    vaults = {name: {"url": f"https://{name}.vault.azure.net"} for name in ("main", "spare")}
    given = {"credential": {"type": "environment"}, "owner": "tokyo", "vaults": vaults, "accounts": accounts}
    return config_of({**given, **more})


@pytest.fixture(autouse=True)
def credential_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets the environment variables of a credential."""
    for name in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET"):
        monkeypatch.setenv(f"AZURE_{name}", SUB)


def is_in(shard: Shard, name: str) -> bool:
    return shard.has(f"/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.Batch/batchAccounts/{name}")


async def test_listed_accounts_are_sharded() -> None:
    """The process serves its own accounts, and secrets of other shards are not orphans."""
    mine = [name for name in NAMES if is_in(SHARD, name)]
    assert 0 < len(mine) < len(NAMES)
    given = config(orphans="disable")
    async with opened(given, Shared(Redactor(), shard=SHARD)) as (_, runtime):
        inventory = await resolve(runtime.discovery)
        assert [account.name for account in inventory.accounts] == mine
        for known in (inventory, runtime.discovery.static):
            await runtime.cover(known)
            search = runtime.orphan_search()
            assert isinstance(search, OrphanSearch)
            assert all(f"{name}-primary-key" in search.served["main"] for name in NAMES)
            assert not any(f"{name}-primary-key" in search.served["spare"] for name in NAMES)
            assert "account9-primary-key" not in search.served["main"]
            assert search.skip_reason is None


async def test_without_a_shard_every_account_is_served() -> None:
    """No account belongs to another shard."""
    given = config()
    async with opened(given) as (_, runtime):
        inventory = await resolve(runtime.discovery)
    assert inventory.accounts == given.accounts
    assert inventory.origins == {}
