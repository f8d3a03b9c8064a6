"""The only place that picks concrete classes and opens them, on one stack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from keysync.azure.clients import Clients
from keysync.azure.clouds import endpoints_of
from keysync.azure.credentials import Credentials
from keysync.azure.errors import FailureTranslator
from keysync.azure.retry import Caller, CallObserver, RetryPolicy
from keysync.azure.transport import open_transport
from keysync.config.models import Account, Config, Vault
from keysync.errors import UsageError
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.scrub import Scrubber
from keysync.sources.azure_batch import BatchAccount
from keysync.sources.interface import KEY_NAMES
from keysync.sources.once import OncePerPass
from keysync.sync.apply import Applier
from keysync.sync.collect import AccountScope, Collector
from keysync.sync.model import Item, ItemRef
from keysync.sync.run import Pass, PassObserver
from keysync.sync.safety import LimitsLike
from keysync.targets.key_vault import KeyVault

_CONNECT_SECONDS = 10.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits in force in one vault."""

    creates: int
    update_percent: int


@dataclass(frozen=True, slots=True)
class Wired:
    """A configuration with everything opened: ready for passes, and for the doctor."""

    config: Config
    accounts: tuple[Account, ...]
    sources: dict[str, BatchAccount]
    targets: dict[str, KeyVault]
    fingerprinter: Fingerprinter
    translator: FailureTranslator
    caller: Caller
    credentials: Credentials
    resource_manager_scope: str

    def make_pass(
        self, observer: PassObserver, stop: asyncio.Event, *, dry_run: bool = False, accept: str | None = None
    ) -> Pass:
        """One pass over every account."""
        timeouts = self.config.timeouts
        patience = timeouts.collect.total_seconds()
        return Pass(
            scopes=self._scopes(),
            collector=Collector(
                self.targets,
                self.fingerprinter,
                self.translator,
                concurrency=self.config.concurrency,
                account_seconds=timeouts.account.total_seconds(),
                patience_seconds=patience,
            ),
            applier=Applier(
                self.targets,
                self.translator,
                concurrency=self.config.concurrency,
                stop=stop,
                grace_seconds=timeouts.shutdown.total_seconds(),
            ),
            limits={name: _limits(self.config, vault) for name, vault in self.config.vaults.items()},
            observer=observer,
            stop=stop,
            collect_seconds=patience,
            dry_run=dry_run,
            accept=accept,
        )

    def _scopes(self) -> tuple[AccountScope, ...]:
        scopes: list[AccountScope] = []
        for account in self.accounts:
            source = OncePerPass(self.sources[account.resource_id])
            scopes += [
                AccountScope(account.resource_id, source, _items(self.config, account, vault))
                for vault in account.vaults
            ]
        return tuple(scopes)


def select_accounts(config: Config, names: Sequence[str]) -> tuple[Account, ...]:
    """The configured accounts named by `--account`, by name or ARM id, all where none is named. Raises UsageError."""
    if not names:
        return config.accounts
    wanted = {name.lower() for name in names}
    found = tuple(one for one in config.accounts if {one.name.lower(), one.resource_id.lower()} & wanted)
    known = {name for one in found for name in (one.name.lower(), one.resource_id.lower())}
    missing = [name for name in names if name.lower() not in known]
    if missing:
        configured = ", ".join(sorted(one.name for one in config.accounts))
        raise UsageError(f"--account {missing[0]}: no such account in the configuration, which has {configured}")
    return found


def refuse_what_is_not_built(config: Config) -> None:
    """Settings that a later version honours are refused: to ignore them silently would be worse. Raises UsageError."""
    asked = {
        "discover": bool(config.discover),
        "recover: owned": config.recover == "owned",
        f"orphans: {config.orphans}": config.orphans != "keep",
    }
    for setting, is_asked in asked.items():
        if is_asked:
            raise UsageError(f"configuration: `{setting}` is not supported by this version of keysync: take it out")


@asynccontextmanager
async def wire(
    config: Config, accounts: Sequence[Account], scrubber: Scrubber, observe: CallObserver
) -> AsyncIterator[Wired]:
    """Opens session, credentials and clients for `accounts`, and closes them in the opposite order.

    No request is made. Raises UsageError for what the configuration names and this machine has not.
    """
    refuse_what_is_not_built(config)
    async with AsyncExitStack() as stack:
        endpoints = endpoints_of(config.cloud)
        transport = await open_transport(stack, ca_bundle=endpoints.ca_bundle, connect_seconds=_CONNECT_SECONDS)
        translator, fingerprinter = FailureTranslator(scrubber), Fingerprinter()
        request_seconds = config.timeouts.request.total_seconds()
        caller = Caller(translator, RetryPolicy(), timeout=request_seconds, observe=observe)
        opener = _Opener(
            stack=stack,
            config=config,
            credentials=Credentials(stack, endpoints, transport, scrubber, timeout=request_seconds),
            clients=Clients(stack, endpoints, transport),
            caller=caller,
            fingerprinter=fingerprinter,
            scrubber=scrubber,
        )
        used = {name for account in accounts for name in account.vaults}
        targets = {name: await opener.vault(name) for name in config.vaults if name in used}
        sources = {account.resource_id: await opener.account(account) for account in accounts}
        yield Wired(
            config,
            tuple(accounts),
            sources,
            targets,
            fingerprinter,
            translator,
            caller,
            opener.credentials,
            endpoints.resource_manager_scope,
        )


@dataclass(frozen=True, slots=True)
class _Opener:
    stack: AsyncExitStack
    config: Config
    credentials: Credentials
    clients: Clients
    caller: Caller
    fingerprinter: Fingerprinter
    scrubber: Scrubber

    async def vault(self, name: str) -> KeyVault:
        settings = self.config.vaults[name]
        credential = await self.credentials.open(settings.credential or self.config.credential)
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
        vault = KeyVault(settings.url, client, self.caller, fingerprinter=self.fingerprinter, scrubber=self.scrubber)
        self.stack.push_async_callback(vault.close)
        return vault

    async def account(self, account: Account) -> BatchAccount:
        credential = await self.credentials.open(account.credential or self.config.credential)
        client = await self.clients.batch(credential, account.subscription_id, self.config.api_versions.batch)
        return BatchAccount(account, client, self.caller, fingerprinter=self.fingerprinter, scrubber=self.scrubber)


def _items(config: Config, account: Account, vault: str) -> tuple[Item, ...]:
    names = account.secret_names()
    return tuple(
        _item(config, account, vault, ItemRef(account.resource_id, key, vault, names[key]))
        for key in KEY_NAMES
        if key in names
    )


def _item(config: Config, account: Account, vault: str, ref: ItemRef) -> Item:
    settings = config.vaults[vault]
    return Item(
        ref,
        tags=settings.tags,
        content_type=settings.content_type or _CONTENT_TYPE,
        owner=config.owner,
        adopt=config.adopt if account.adopt is None else account.adopt,
        read_only=config.read_only or settings.read_only or account.read_only,
    )


# Tells a person who opens the vault what this is.
_CONTENT_TYPE = "text/plain; azure-batch-account-key"


def _limits(config: Config, vault: Vault) -> LimitsLike:
    own = vault.limits
    creates = own.creates if own is not None and own.creates is not None else config.limits.creates
    updates = own.update_percent if own is not None and own.update_percent is not None else config.limits.update_percent
    return Limits(creates, updates)
