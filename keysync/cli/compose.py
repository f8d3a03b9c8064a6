"""Picks the concrete classes for a configuration and opens them on one exit stack."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

from keysync.azure.circuit_breaker import Breakers
from keysync.azure.client_factory import ClientFactory, check_credentials
from keysync.azure.clients import Clients
from keysync.azure.clouds import endpoints_of
from keysync.azure.credentials import Credentials
from keysync.azure.errors import AzureFailureTranslator
from keysync.azure.retry import Caller, RetryPolicy
from keysync.azure.transport import open_transport
from keysync.calls import CallAdmission, CallObserver, Operation
from keysync.config.model import Account, Config
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.redact import Redactor
from keysync.sources.batch_access import BatchSources
from keysync.sources.discovery import Discovery
from keysync.sources.existence import BatchAccountExistence
from keysync.sources.list_batch import BatchLister
from keysync.sources.list_resource_graph import ResourceGraphLister
from keysync.sources.shard import everything
from keysync.sync.locks import SecretLocks
from keysync.sync.run_factory import RunFactory
from keysync.targets.key_vault import KeyVault
from keysync.targets.recent_writes import RecentWrites

_CONNECT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class AppOptions:
    """Parts of an `App` that differ between commands.

    `is_mine` says by ARM id whether an account is in the shard of this process; `Discovery` returns no others. The daemon
    passes circuit breakers, and what outlives one configuration: locks, writes and the key of fingerprints. `leader_admission`
    is as in `ClientFactory`.
    """

    is_mine: Callable[[str], bool] = everything
    breakers: Breakers | None = None
    leader_admission: Callable[[CallAdmission], CallAdmission] | None = None
    locks: SecretLocks = field(default_factory=SecretLocks)
    writes: RecentWrites = field(default_factory=RecentWrites)
    fingerprinter: Fingerprinter = field(default_factory=Fingerprinter)


@dataclass(slots=True)
class App:
    """One configuration with everything open that a run or a check needs. `accounts` are those of the last `cover`."""

    config: Config
    clients: ClientFactory
    sources: BatchSources
    targets: dict[str, KeyVault]
    open_vault: Callable[[str], Awaitable[KeyVault]]
    discovery: Discovery
    runs: RunFactory
    accounts: tuple[Account, ...] = ()

    async def cover(self, accounts: Sequence[Account]) -> None:
        """Opens the clients that `accounts` need and closes access to accounts that are gone.

        Makes no request and does not disturb runs under way. Raises UsageError as `open_app` does.
        """
        for name in dict.fromkeys(name for account in accounts for name in account.vaults):
            if name not in self.targets:
                self.targets[name] = await self.open_vault(name)
        await self.sources.cover(accounts)
        self.accounts = tuple(accounts)

    @property
    def credential_names(self) -> tuple[str, ...]:
        """The names of the open credentials, as in the log, `check` and the status page."""
        return tuple(credential.name for credential in self.clients.credentials.opened)

    @property
    def credential_expiries(self) -> dict[str, datetime]:
        """When the open credentials expire, by name. Omits those of unknown expiry."""
        opened = self.clients.credentials.opened
        return {credential.name: credential.expires_at for credential in opened if credential.expires_at is not None}


def uncounted(operation: Operation, status: str) -> None:
    """A `CallObserver` that counts nothing."""


@asynccontextmanager
async def open_app(
    config: Config,
    accounts: Sequence[Account],
    redactor: Redactor,
    observe: CallObserver,
    options: AppOptions | None = None,
) -> AsyncGenerator[App]:
    """Opens session, credentials and clients for `accounts`, and closes them in reverse order.

    Discovered accounts follow later, through `App.discovery` and `App.cover`. Makes no request. Raises UsageError if this
    machine lacks something that the configuration names.
    """
    options = options or AppOptions()
    if config.discover:
        # Listed accounts open their credentials below. Discovered accounts would do so only after the first requests.
        check_credentials(config)
    async with AsyncExitStack() as stack:
        endpoints, request_seconds = endpoints_of(config.cloud), config.timeouts.request.total_seconds()
        transport = await open_transport(
            stack, ca_bundle=endpoints.ca_bundle, connect_seconds=_CONNECT_SECONDS, redactor=redactor
        )
        translator = AzureFailureTranslator(redactor)
        caller = Caller(translator, RetryPolicy(), timeout=request_seconds, observe=observe)
        clients = ClientFactory(
            config,
            Credentials(stack, endpoints, transport, redactor, timeout=request_seconds),
            Clients(stack, endpoints, transport),
            caller,
            options.breakers,
            options.leader_admission,
        )
        open_vault = partial(_open_vault, stack, clients, redactor, options)
        # The search for orphans also reads vaults that no account uses any more.
        searched = config.vaults if config.orphans != "keep" else ()
        targets = {name: await open_vault(name) for name in searched}
        keyless: set[str] = set()
        sources = BatchSources(
            clients.batch_accounts, fingerprinter=options.fingerprinter, redactor=redactor, keyless=keyless
        )
        for entry in config.discover:
            await clients.credential(entry.credential)  # reports an unreadable file before the first request
        discovery = Discovery(
            config.discover,
            {"list": BatchLister(clients.batch_list), "resource_graph": ResourceGraphLister(clients.batch_list)},
            translator,
            listed=config.accounts,
            vaults={name: vault.url for name, vault in config.vaults.items()},
            mine=options.is_mine,
            keyless=keyless,
            seconds=config.timeouts.account.total_seconds(),
            concurrency=config.concurrency,
        )
        runs = RunFactory(
            config,
            sources,
            targets,
            partial(BatchAccountExistence, clients.subscription, caller),
            options.fingerprinter,
            translator,
            options.locks,
            redactor.redact,
        )
        app = App(config, clients, sources, targets, open_vault, discovery, runs)
        await app.cover(accounts)
        yield app


async def _open_vault(
    stack: AsyncExitStack, clients: ClientFactory, redactor: Redactor, options: AppOptions, name: str
) -> KeyVault:
    config = clients.config
    client, caller = await clients.vault(name)
    vault = KeyVault(
        config.vaults[name].url,
        client,
        caller,
        fingerprinter=options.fingerprinter,
        redactor=redactor,
        verify_seconds=config.verify_every.total_seconds() if config.verify_every else 0.0,
        writes=options.writes,
    )
    stack.push_async_callback(vault.close)
    return vault
