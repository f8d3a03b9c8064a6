"""Opens the clients of Azure, each with the caller that retries and limits its calls."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Final
from urllib.parse import urlsplit

from azure.keyvault.secrets.aio import SecretClient
from azure.mgmt.batch.aio import BatchManagementClient

from keysync.azure.circuit_breaker import Breakers
from keysync.azure.clients import batch_client, vault_client
from keysync.azure.credentials import Credentials
from keysync.azure.rate_limit import TokenBucket
from keysync.azure.retry import Caller
from keysync.azure.sign_in import check_environment
from keysync.azure.single_flight_credential import SingleFlightCredential
from keysync.config.credentials import Credential
from keysync.config.model import Account, Config, Discover, Vault
from keysync.errors import UsageError
from keysync.names import fold

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def check_credentials(config: Config) -> None:
    """Raises UsageError if the environment of a credential in `config` is incomplete or unusable."""
    users: tuple[Vault | Account | Discover, ...] = (*config.vaults.values(), *config.accounts, *config.discover)
    for user in users:
        check_environment(user.credential or config.credential)


@dataclass(frozen=True, slots=True)
class ClientFactory:
    """Opens the clients that `config` needs, each with its caller. Clients and credentials are shared and opened once.

    With `breakers`, each vault and each credential has a circuit breaker.
    """

    config: Config
    credentials: Credentials
    caller: Caller
    breakers: Breakers | None = None
    buckets: dict[tuple[str, str], TokenBucket] = field(default_factory=dict[tuple[str, str], TokenBucket])
    """Resource Manager has a rate limit for each subscription and principal."""

    _batch_clients: dict[tuple[str, str], BatchManagementClient] = field(
        default_factory=dict[tuple[str, str], BatchManagementClient]
    )

    async def credential(self, credential: Credential | None) -> SingleFlightCredential:
        """The opened `credential`; for None the default one of the configuration. Raises UsageError."""
        return await self.credentials.open(credential or self.config.credential)

    async def vault(self, name: str) -> tuple[SecretClient, Caller]:
        """The client of the vault called `name` in the configuration. Raises UsageError."""
        settings = self.config.vaults[name]
        credential = await self.credential(settings.credential)
        # A loopback name has no parent domain to verify the challenge with. No vault of Azure has such a name.
        verify = settings.verify_challenge_resource and urlsplit(settings.url).hostname not in _LOOPBACK
        try:
            client = vault_client(
                credential,
                settings.url,
                self.credentials.transport,
                verify_challenge=verify,
                api_version=self.config.api_versions.secrets,
            )
        except NotImplementedError as error:
            raise UsageError(f"api_versions.secrets: {error}") from error
        return client, self._caller(credential, vault=name)

    async def batch_accounts(
        self, subscription_id: str, credential: Credential | None
    ) -> tuple[BatchManagementClient, Caller]:
        """The client that reads the keys of a subscription's Batch accounts with `credential`. Raises UsageError."""
        opened = await self.credential(credential)
        bucket = self.buckets.setdefault((fold(subscription_id), opened.name), TokenBucket())
        return self._batch(opened, subscription_id), self._caller(opened, bucket=bucket)

    async def batch_list(self, entry: Discover, subscription_id: str) -> tuple[BatchManagementClient, Caller]:
        """The client that lists Batch accounts, or queries Resource Graph, for a `discover` entry. Raises UsageError."""
        credential = await self.credential(entry.credential)
        # Without the rate limit: it counts writes, and a list is a read.
        return self._batch(credential, subscription_id), self._caller(credential)

    async def subscription(self, subscription_id: str) -> BatchManagementClient:
        """The Batch client of any subscription, with the credential that its accounts or `discover` entries have."""
        folded_id = fold(subscription_id)
        listed = (account.credential for account in self.config.accounts if account.subscription_id == folded_id)
        discovered = (entry.credential for entry in self.config.discover if folded_id in entry.scopes)
        credential = next(chain(listed, discovered, (None,)))
        return self._batch(await self.credential(credential), subscription_id)

    def _batch(self, credential: SingleFlightCredential, subscription_id: str) -> BatchManagementClient:
        key = (subscription_id, credential.name)
        if key not in self._batch_clients:
            endpoints, transport = self.credentials.endpoints, self.credentials.transport
            self._batch_clients[key] = batch_client(
                credential, subscription_id, endpoints, transport, self.config.api_versions.batch
            )
        return self._batch_clients[key]

    def _caller(
        self, credential: SingleFlightCredential, *, vault: str | None = None, bucket: TokenBucket | None = None
    ) -> Caller:
        if self.breakers is None:
            return replace(self.caller, bucket=bucket)
        keys = (*([f"vault:{vault}"] if vault is not None else []), f"credential:{credential.name}")
        return replace(self.caller, admit=partial(self.breakers.admit, *keys), bucket=bucket)
