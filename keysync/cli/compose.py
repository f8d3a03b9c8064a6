"""Picks the concrete classes for a configuration: `open_clients` the clients of Azure, `open_runtime` all that uses them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from keysync.azure.circuit_breaker import Breakers
from keysync.azure.client_factory import ClientFactory, check_credentials
from keysync.azure.credentials import Credentials, endpoints_of
from keysync.azure.errors import AzureFailureTranslator
from keysync.azure.retry import Caller, RetryPolicy
from keysync.azure.transport import open_transport
from keysync.calls import CallObserver
from keysync.config.model import Config
from keysync.secret.redact import Redactor
from keysync.sources.azure_batch import BatchSources
from keysync.sources.discovery import Discovery
from keysync.sources.list_batch import BatchAccountExistence, BatchLister
from keysync.sources.list_resource_graph import ResourceGraphLister
from keysync.sources.listing import AccountLister
from keysync.sync.runtime import Runtime, Shared
from keysync.targets.interface import SecretTarget
from keysync.targets.key_vault import KeyVault

CONNECT_SECONDS: Final = 10.0


async def open_clients(
    stack: AsyncExitStack,
    config: Config,
    redactor: Redactor,
    *,
    observe: CallObserver | None = None,
    breakers: Breakers | None = None,
) -> ClientFactory:
    """Opens the session that all clients share; `stack` closes it. Makes no request. `observe` gets each call.

    `breakers` are as in `ClientFactory`. Raises UsageError if this machine lacks something that the configuration names.
    """
    if config.discover:
        # Listed accounts open their credentials later, before the first request. Discovered accounts would do so after it.
        check_credentials(config)
    endpoints, request_seconds = endpoints_of(config.cloud), config.timeouts.request.total_seconds()
    transport = await open_transport(
        stack, ca_bundle=endpoints.ca_bundle, connect_seconds=CONNECT_SECONDS, redactor=redactor
    )
    observe = observe or (lambda _operation, _status: None)
    caller = Caller(AzureFailureTranslator(redactor), RetryPolicy(), timeout=request_seconds, observe=observe)
    credentials = Credentials(stack, endpoints, transport, redactor, timeout=request_seconds)
    return ClientFactory(config, credentials, caller, breakers)


async def open_runtime(stack: AsyncExitStack, clients: ClientFactory, shared: Shared) -> Runtime:
    """The sources, targets and discovery of a configuration. It serves no account until `Runtime.cover`. Makes no request.

    `stack` closes them. Raises UsageError as `open_clients` does.
    """
    config, redactor = clients.config, shared.redactor
    translator = clients.caller.translator
    open_target = partial(_open_vault, stack, clients, shared)
    # The search for orphans also reads vaults that no account uses any more.
    targets = {name: await open_target(name) for name in (config.vaults if config.orphans != "keep" else ())}
    for entry in config.discover:
        await clients.credential(entry.credential)  # reports an unreadable file before the first request
    keyless: set[str] = set()
    listers: dict[str, AccountLister] = {
        "list": BatchLister(clients.batch_list, config.api_versions.batch),
        "resource_graph": ResourceGraphLister(clients.batch_list),
    }
    discovery = Discovery(config, listers, translator, mine=shared.discovered, keyless=keyless)
    return Runtime(
        config,
        shared,
        BatchSources(clients.batch_accounts, fingerprinter=shared.fingerprinter, redactor=redactor, keyless=keyless),
        targets,
        open_target,
        discovery,
        partial(BatchAccountExistence, clients.subscription, clients.caller, config.api_versions.batch),
        translator,
        lambda: tuple(clients.credentials.opened.values()),
        stack,
        discovery.static,
    )


async def _open_vault(stack: AsyncExitStack, clients: ClientFactory, shared: Shared, name: str) -> SecretTarget:
    config = clients.config
    client, caller = await clients.vault(name)
    vault = KeyVault(
        config.vaults[name].url,
        client,
        caller,
        fingerprinter=shared.fingerprinter,
        redactor=shared.redactor,
        verify_seconds=config.verify_every.total_seconds() if config.verify_every else 0.0,
        writes=shared.writes,
    )
    stack.push_async_callback(vault.close)
    return vault
