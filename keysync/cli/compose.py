"""The only place that picks concrete classes and opens them, on one stack."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from azure.mgmt.batch.aio import BatchManagementClient

from keysync.azure.clients import Clients
from keysync.azure.clouds import endpoints_of
from keysync.azure.credentials import Credentials, SingleFlightCredential, check_environment
from keysync.azure.errors import AzureFailureTranslator
from keysync.azure.rate_limit import ArmRateLimiter
from keysync.azure.retry import Caller, RetryPolicy
from keysync.azure.transport import SharedTransport, open_transport
from keysync.calls import CallGuard, CallObserver
from keysync.config.settings import Account, Config, Credential, Discover
from keysync.errors import UsageError
from keysync.failures import FailureTranslator
from keysync.names import fold
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.redact import Redactor
from keysync.sources.azure_batch import BatchAccount
from keysync.sources.discovery import Discovery
from keysync.sources.existence import BatchAccountExistence
from keysync.sources.list_batch import BatchLister
from keysync.sources.listing import AccountLister
from keysync.sync.apply import Applier
from keysync.sync.collect import Collector
from keysync.sync.inventory import Inventory, static_only
from keysync.sync.items import (
    ItemFactory,
    Selection,
    WorkItems,
    limits_of,
    one_each,
    read_only_accounts,
    read_only_vaults,
    served_names,
)
from keysync.sync.locks import SecretLocks
from keysync.sync.model import Preflight
from keysync.sync.observers import RunObserver
from keysync.sync.orphans import MissingCounters, OrphanSearch
from keysync.sync.run import SyncRun
from keysync.sync.shard import everything
from keysync.targets.key_vault import KeyVault
from keysync.targets.writes import Writes
from keysync.tracing import NO_TRACER, Tracer

if TYPE_CHECKING:
    from azure.mgmt.resourcegraph.aio import ResourceGraphClient

_GRACE = 0.8
_CONNECT_SECONDS = 10.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(slots=True)
class App:
    """A configuration with everything opened: ready for runs, and for the doctor.

    `accounts` are those that runs are about; `cover` brings others.
    """

    config: Config
    accounts: tuple[Account, ...]
    accesses: dict[AccessKey, BatchAccess]
    targets: dict[str, KeyVault]
    fingerprinter: Fingerprinter
    translator: FailureTranslator
    caller: Caller
    credentials: Credentials
    resource_manager_scope: str
    batch_client: Callable[[str], Awaitable[BatchManagementClient]]
    transport: SharedTransport
    locks: SecretLocks
    tracer: Tracer
    discovery: Discovery
    opener: ClientFactory

    async def cover(self, accounts: Sequence[Account]) -> None:
        """From now on runs are about `accounts`: opens what is missing, and forgets what nobody needs any more.

        No request is made, and runs under way are not disturbed. Raises UsageError as `open_app` does.
        """
        for name in dict.fromkeys(name for account in accounts for name in account.vaults):
            if name not in self.targets:
                self.targets[name] = await self.opener.vault(name)
        reaches = {access_key(account) for account in accounts}
        for reach in reaches - self.accesses.keys():
            self.accesses[reach] = await self.opener.access(*reach)
        self.accounts = tuple(accounts)
        for gone in self.accesses.keys() - reaches:
            del self.accesses[gone]

    def source(self, account: Account) -> BatchAccount:
        """The keys of one of `accounts`."""
        return self._source_by(self.accesses, account)

    def _source_by(self, accesses: Mapping[AccessKey, BatchAccess], account: Account) -> BatchAccount:
        # Made anew whenever it is asked for: thousands that are kept would cost more than all that a run needs of them.
        access = accesses[access_key(account)]
        return BatchAccount(
            account,
            access.client,
            access.caller,
            fingerprinter=self.fingerprinter,
            redactor=self.opener.redactor,
            keyless=self.opener.keyless,
        )

    def make_run(
        self,
        observer: RunObserver,
        stop: asyncio.Event,
        *,
        dry_run: bool = False,
        accept: str | None = None,
        asked: Selection | None = None,
        orphans: OrphanSearch | None = None,
        accounts: Sequence[Account] | None = None,
        busy: int = 0,
        patience: float | None = None,
        preflight: Preflight | None = None,
    ) -> SyncRun:
        """One run over every account, or over `accounts`; with `asked.adopt`, over nothing but what is not ours yet.

        `patience` is in seconds how long the limits wait for slow accounts, if that is to be less than configured.
        """
        timeouts, asked = self.config.timeouts, asked or Selection()
        patience = min(timeouts.collect.total_seconds(), patience or math.inf)
        return SyncRun(
            work_items=WorkItems(
                self.accounts if accounts is None else accounts,
                ItemFactory(self.config, asked),
                # Of its own: what covers other accounts meanwhile must not take these away.
                partial(self._source_by, dict(self.accesses)),
            ),
            collector=Collector(
                self.targets,
                self.fingerprinter,
                self.translator,
                concurrency=self.config.concurrency,
                account_seconds=timeouts.account.total_seconds(),
                patience_seconds=patience,
                tracer=self.tracer,
            ),
            applier=Applier(
                self.targets,
                self.translator,
                concurrency=self.config.concurrency,
                stop=stop,
                # The rest is for closing sessions.
                grace_seconds=timeouts.shutdown.total_seconds() * _GRACE,
                locks=self.locks,
                tracer=self.tracer,
            ),
            limits={name: limits_of(self.config, vault) for name, vault in self.config.vaults.items()},
            observer=observer,
            stop=stop,
            collect_seconds=patience,
            dry_run=dry_run,
            accept=accept,
            only_unmanaged=asked.adopt is not None,
            options=asked.options,
            orphans=orphans,
            orphans_seconds=timeouts.account.total_seconds(),
            busy=busy,
            preflight=preflight or Preflight(),
            tracer=self.tracer,
            redact=self.opener.redactor.redact,
        )

    @property
    def credential_names(self) -> tuple[str, ...]:
        """The credentials in use, as the log, the doctor and the page name them."""
        return tuple(credential.name for credential in self.credentials.opened)

    @property
    def credential_expiries(self) -> dict[str, datetime]:
        """When those of them expire that are known to, by their names."""
        opened = self.credentials.opened
        return {one.name: one.expires_at for one in opened if one.expires_at is not None}

    def orphan_search(
        self,
        *,
        inventory: Inventory | None = None,
        is_mine: Callable[[str], bool] = everything,
        streaks: MissingCounters | None = None,
    ) -> OrphanSearch | None:
        """The search for orphans, None where they are kept; `streaks` is the daemon's memory.

        `inventory` knows all that the configuration covers, of other shards too; with `discover` nothing is removed without it.
        """
        mode, owner = self.config.orphans, self.config.owner
        if mode == "keep" or owner is None:
            return None
        covered = inventory or static_only(self.config, self.discovery)
        served = served_names(self.config, covered.accounts)
        return OrphanSearch(
            targets=one_each(self.config, self.targets),
            directory=BatchAccountExistence(self.batch_client, self.caller),
            translator=self.translator,
            mode=mode,
            owner=owner,
            served={name: covered.others.beside(self.config.vaults[name].url, served[name]) for name in served},
            read_only=read_only_vaults(self.config),
            read_only_accounts=read_only_accounts(covered.accounts),
            is_mine=is_mine,
            streaks=streaks,
            # What is refused is in the report already.
            excluded={fold(one.resource_id): None if one.refused else one.reason for one in covered.skipped},
            skip_reason=None if covered.complete else "not every account could be listed",
        )


@dataclass(frozen=True, slots=True)
class AppOptions:
    """What a daemon adds to the wiring: guards before vaults and credentials (by breaker keys), traces, and what outlives it:
    locks, writes, and the key of fingerprints by which they are compared.

    `mine` tells by ARM id which accounts are in the share of this process: `Discovery` finds no others.
    """

    guard: Callable[[Sequence[str]], CallGuard | None] = lambda _keys: None
    tracer: Tracer = NO_TRACER
    locks: SecretLocks = field(default_factory=SecretLocks)
    writes: Writes = field(default_factory=Writes)
    fingerprinter: Fingerprinter = field(default_factory=Fingerprinter)
    mine: Callable[[str], bool] = everything


@asynccontextmanager
async def open_app(
    config: Config,
    accounts: Sequence[Account],
    redactor: Redactor,
    observe: CallObserver,
    extras: AppOptions | None = None,
) -> AsyncIterator[App]:
    """Opens session, credentials and clients for `accounts`, and closes them in the opposite order.

    Accounts that are discovered come later, by `App.discovery` and `App.cover`. No request is made. Raises UsageError for
    what the configuration names and this machine has not.
    """
    extras = extras or AppOptions()
    # Accounts that are listed are covered before the first request; what is discovered comes after some.
    for credential in _in_use(config) if config.discover else ():
        check_environment(credential)
    async with AsyncExitStack() as stack:
        endpoints = endpoints_of(config.cloud)
        transport = await open_transport(
            stack, ca_bundle=endpoints.ca_bundle, connect_seconds=_CONNECT_SECONDS, redactor=redactor
        )
        translator, fingerprinter = AzureFailureTranslator(redactor), extras.fingerprinter
        request_seconds = config.timeouts.request.total_seconds()
        caller = Caller(translator, RetryPolicy(), timeout=request_seconds, observe=observe)
        opener = ClientFactory(
            stack=stack,
            config=config,
            credentials=Credentials(stack, endpoints, transport, redactor, timeout=request_seconds),
            clients=Clients(stack, endpoints, transport, tracing=extras.tracer.enabled),
            caller=caller,
            guard=extras.guard,
            pace=ArmRateLimiter(),
            fingerprinter=fingerprinter,
            redactor=redactor,
            keyless=set(),
            writes=extras.writes,
        )
        # An account that is gone may have been the last of its vault.
        targets = {name: await opener.vault(name) for name in config.vaults} if config.orphans != "keep" else {}
        app = App(
            config,
            (),
            {},
            targets,
            fingerprinter,
            translator,
            caller,
            opener.credentials,
            endpoints.resource_manager_scope,
            opener.subscription,
            transport,
            extras.locks,
            extras.tracer,
            await _open_discovery(config, opener, translator, extras.mine),
            opener,
        )
        await app.cover(accounts)
        yield app


def _in_use(config: Config) -> Iterator[Credential]:
    """The credentials that something names, and the general one if anything relies on it."""
    own = (
        *(vault.credential for vault in config.vaults.values()),
        *(account.credential for account in config.accounts),
        *(entry.credential for entry in config.discover),
    )
    yield from (one or config.credential for one in own)


async def _open_discovery(
    config: Config, opener: ClientFactory, translator: FailureTranslator, mine: Callable[[str], bool]
) -> Discovery:
    for entry in config.discover:
        await opener.credential(entry.credential)  # a file that cannot be read is told before the first request
    return Discovery(
        config.discover,
        _routes(config.discover, opener),
        translator,
        listed=config.accounts,
        vaults={name: vault.url for name, vault in config.vaults.items()},
        mine=mine,
        keyless=opener.keyless,
        seconds=config.timeouts.account.total_seconds(),
        concurrency=config.concurrency,
    )


def _routes(entries: Iterable[Discover], opener: ClientFactory) -> Mapping[str, AccountLister]:
    routes: dict[str, AccountLister] = {"list": BatchLister(opener.batch_list)}
    for index, entry in enumerate(entries):
        if entry.via == "resource_graph" and entry.via not in routes:
            try:
                from keysync.sources.list_resource_graph import ResourceGraphLister  # noqa: PLC0415  # an extra
            except ImportError:
                told = (
                    f"discover[{index}].via: resource_graph needs an extra: in a clone, pip install '.[resource-graph]'"
                )
                raise UsageError(told) from None
            routes[entry.via] = ResourceGraphLister(opener.resource_graph)
    return routes


@dataclass(frozen=True, slots=True)
class ClientFactory:
    stack: AsyncExitStack
    config: Config
    credentials: Credentials
    clients: Clients
    caller: Caller
    guard: Callable[[Sequence[str]], CallGuard | None]
    pace: ArmRateLimiter
    fingerprinter: Fingerprinter
    redactor: Redactor
    keyless: set[str]
    writes: Writes

    async def vault(self, name: str) -> KeyVault:
        settings = self.config.vaults[name]
        credential = await self.credential(settings.credential)
        try:
            client = await self.clients.secrets(
                credential,
                settings.url,
                # No domain stands above a loopback name, so there is nothing to verify; Azure has no vault there.
                verify_challenge=settings.verify_challenge_resource
                and urlsplit(settings.url).hostname not in _LOOPBACK,
                api_version=self.config.api_versions.secrets,
            )
        except NotImplementedError as error:
            raise UsageError(f"api_versions.secrets: {error}") from error
        guard = self.guard((f"vault:{name}", _breaker_key(credential)))
        vault = KeyVault(
            settings.url,
            client,
            self.caller.with_breaker(guard),
            fingerprinter=self.fingerprinter,
            redactor=self.redactor,
            verify_seconds=self.config.verify_every.total_seconds() if self.config.verify_every else 0.0,
            writes=self.writes,
        )
        self.stack.push_async_callback(vault.close)
        return vault

    async def subscription(self, subscription_id: str) -> BatchManagementClient:
        """A client for any subscription, with the credential that its configured accounts have, if there are any."""
        wanted = fold(subscription_id)
        listed = (one.credential for one in self.config.accounts if one.subscription_id == wanted)
        found = (entry.credential for entry in self.config.discover if wanted in entry.scopes)
        credential = next(chain(listed, found, (None,)))
        return await self._batch(await self.credential(credential), subscription_id)

    async def batch_list(self, entry: Discover, subscription_id: str) -> tuple[BatchManagementClient, Caller]:
        """What it takes to list one subscription for an entry."""
        credential = await self.credential(entry.credential)
        return await self._batch(credential, subscription_id), self._lister(credential)

    async def resource_graph(self, entry: Discover) -> tuple[ResourceGraphClient, Caller]:
        """What it takes to list by Resource Graph for an entry."""
        credential = await self.credential(entry.credential)
        return await self.clients.resource_graph(credential), self._lister(credential)

    def _lister(self, credential: SingleFlightCredential) -> Caller:
        # Without a pace: that one counts writes, and a list spends reads.
        return self.caller.with_breaker(self.guard((_breaker_key(credential),)))

    async def credential(self, credential: Credential | None) -> SingleFlightCredential:
        """The credential asked for, or else the general one. Raises UsageError."""
        return await self.credentials.open(credential or self.config.credential)

    async def _batch(self, credential: SingleFlightCredential, subscription_id: str) -> BatchManagementClient:
        return await self.clients.batch(credential, subscription_id, self.config.api_versions.batch)

    async def access(self, subscription_id: str, wanted: Credential | None) -> BatchAccess:
        credential = await self.credential(wanted)
        client = await self._batch(credential, subscription_id)
        # Resource Manager counts calls by subscription and principal.
        subscription = fold(subscription_id)
        caller = self.caller.with_breaker(
            self.guard((_breaker_key(credential),)),
            pace=self.pace,
            pace_key=(subscription, _breaker_key(credential)),
        )
        return BatchAccess(client, caller)


@dataclass(frozen=True, slots=True)
class BatchAccess:
    """What all accounts of one subscription that are read with one credential have in common."""

    client: BatchManagementClient
    caller: Caller


AccessKey: TypeAlias = tuple[str, Credential | None]


def access_key(account: Account) -> AccessKey:
    return account.subscription_id, account.credential


def _breaker_key(credential: SingleFlightCredential) -> str:
    return f"credential:{credential.name}"
