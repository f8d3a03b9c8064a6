"""The common part of the sequential script and the one with threads: the blocking SDKs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from azure.core.exceptions import ResourceNotFoundError
from azure.identity import EnvironmentCredential
from azure.keyvault.secrets import KeyVaultSecret, SecretClient
from azure.mgmt.batch import BatchManagementClient

from tests.benchmarks.scripts.stages import KEYS, Account, Work


@dataclass(frozen=True)
class Clients:
    """A client for each subscription and for each vault."""

    batch: Mapping[str, BatchManagementClient]
    vaults: Mapping[str, SecretClient]

    def sync(self, account: Account) -> int:
        """Write the keys of one account that differ from its vault's secrets; returns how many it wrote."""
        keys = self.batch[account.subscription_id].batch_account.get_keys(account.resource_group, account.name)
        vault, written = self.vaults[account.vault], 0
        for key in KEYS:
            name, value = account.secrets()[key], getattr(keys, key)
            stored = _stored(vault, name)
            if stored is None or stored.value != value:
                # A new version inherits nothing, so the tags are sent again.
                tags = None if stored is None else stored.properties.tags
                vault.set_secret(name, value, tags=tags)
                written += 1
        return written


def open_clients(stack: ExitStack, work: Work, **options: Any) -> Clients:
    """Open the clients; `stack` closes them. `options` go to each client."""
    credential = stack.enter_context(
        EnvironmentCredential(authority=work.authority, disable_instance_discovery=True, **options)
    )
    batch = {
        subscription: stack.enter_context(
            BatchManagementClient(
                credential, subscription, base_url=work.resource_manager, credential_scopes=[work.scope], **options
            )
        )
        for subscription in work.subscriptions
    }
    vaults = {
        url: stack.enter_context(SecretClient(url, credential, verify_challenge_resource=False, **options))
        for url in work.vaults
    }
    return Clients(batch, vaults)


def _stored(vault: SecretClient, name: str) -> KeyVaultSecret | None:
    try:
        return vault.get_secret(name)
    except ResourceNotFoundError:
        return None
