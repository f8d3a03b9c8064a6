"""What a run collects, made when it is asked for."""

from __future__ import annotations

from typing import Any

from keysync.config.settings import Account
from keysync.sources.interface import KeySource
from keysync.sync.items import ItemFactory, Selection, WorkItems
from tests.support.memory import MemorySource
from tests.support.runs import key
from tests.support.settings import config_of

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"


def scopes_of(*accounts: dict[str, Any], asked: Selection | None = None) -> tuple[WorkItems, list[str]]:
    """The scopes of a configuration with the vaults main and spare, and the accounts whose source was made."""
    config = config_of(
        {
            "vaults": {name: {"url": f"https://{name}.vault.azure.net"} for name in ("main", "spare")},
            "accounts": [
                {"subscription_id": SUBSCRIPTION, "resource_group": "batch", **account} for account in accounts
            ],
        }
    )
    made: list[str] = []

    def source(account: Account) -> KeySource:
        made.append(account.name)
        return MemorySource(key("one"), key("two"))

    return WorkItems(config.accounts, ItemFactory(config, asked or Selection()), source), made


async def test_there_is_one_for_each_account_and_vault() -> None:
    """In the order of the configuration, and the same however often it is asked for."""
    scopes, _ = scopes_of({"name": "alpha", "vaults": ["main"]}, {"name": "beta", "vaults": ["main", "spare"]})
    served = [(scope.account.rpartition("/")[2], scope.items[0].ref.vault) for scope in scopes]
    assert served == [("alpha", "main"), ("beta", "main"), ("beta", "spare")]
    assert [scope.items for scope in scopes[1:]] == [scopes[1].items, scopes[2].items]
    assert {scope.group for scope in scopes} == {SUBSCRIPTION}
    assert [item.ref.secret for item in scopes[0].items] == ["alpha-primary-key", "alpha-secondary-key"]


async def test_an_account_of_several_vaults_is_asked_once() -> None:
    """Its scopes share what asks it, also when the first is long over as the last is made; others have their own."""
    scopes, made = scopes_of({"name": "alpha", "vaults": ["main"]}, {"name": "beta", "vaults": ["main", "spare"]})
    keys = [await scopes[number].source.get_keys() for number in (1, 2)]
    assert keys[0] is keys[1]
    assert made == ["beta"]
    assert scopes[0].source is not scopes[0].source


async def test_what_the_run_is_not_about_has_none() -> None:
    """With the secrets of one vault asked for, an account is in that vault's scopes only, and shares nothing."""
    asked = Selection(secrets=frozenset({"spare/beta-primary-key"}))
    scopes, made = scopes_of({"name": "beta", "vaults": ["main", "spare"]}, asked=asked)
    assert [[item.ref.secret for item in scope.items] for scope in scopes] == [["beta-primary-key"]]
    assert made == ["beta"]
    assert scopes[0].source is not scopes[0].source
