"""Work items: one for each account and vault."""

from __future__ import annotations

from typing import Any

from keysync.config.model import Account
from keysync.sources.interface import KeySource
from keysync.sync.items import Selection, WorkItem, work_items_of
from tests.support.memory import MemorySource
from tests.support.runs import key
from tests.support.settings import config_of

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"


def made(*accounts: dict[str, Any], selection: Selection | None = None) -> tuple[list[WorkItem], list[str]]:
    """The work items of a configuration with two vaults, and the accounts whose sources were created."""
    config = config_of(
        {
            "vaults": {name: {"url": f"https://{name}.vault.azure.net"} for name in ("main", "spare")},
            "accounts": [
                {"subscription_id": SUBSCRIPTION, "resource_group": "batch", **account} for account in accounts
            ],
        }
    )
    created: list[str] = []

    def source(account: Account) -> KeySource:
        created.append(account.name)
        return MemorySource(key("one"), key("two"))

    return work_items_of(config, config.accounts, selection or Selection(), source), created


async def test_there_is_a_work_item_per_account_and_vault() -> None:
    """They are in the order of the configuration."""
    work_items, _ = made({"name": "alpha", "vaults": ["main"]}, {"name": "beta", "vaults": ["main", "spare"]})
    served = [(work_item.account.rpartition("/")[2], work_item.items[0].ref.vault) for work_item in work_items]
    assert served == [("alpha", "main"), ("beta", "main"), ("beta", "spare")]
    assert {work_item.group for work_item in work_items} == {SUBSCRIPTION}
    assert [item.ref.secret for item in work_items[0].items] == ["alpha-primary-key", "alpha-secondary-key"]


async def test_the_keys_of_an_account_with_several_vaults_are_requested_once() -> None:
    """Its work items share a source. Other accounts have their own."""
    work_items, created = made({"name": "alpha", "vaults": ["main"]}, {"name": "beta", "vaults": ["main", "spare"]})
    keys = [await work_items[number].source.get_keys() for number in (1, 2)]
    assert keys[0] is keys[1]
    assert created == ["alpha", "beta"]
    assert work_items[0].source is not work_items[1].source


async def test_unselected_secrets_have_no_work_item() -> None:
    """With secrets of one vault selected, an account has one work item, and no shared source."""
    selection = Selection(secrets=frozenset({"spare/beta-primary-key"}))
    work_items, created = made({"name": "beta", "vaults": ["main", "spare"]}, selection=selection)
    assert [[item.ref.secret for item in work_item.items] for work_item in work_items] == [["beta-primary-key"]]
    assert created == ["beta"]
    assert isinstance(work_items[0].source, MemorySource)
