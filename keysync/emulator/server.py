"""The embedded Azure as a whole: its state, its services and their listeners."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from keysync.emulator import store
from keysync.emulator.access import Access
from keysync.emulator.control import Control
from keysync.emulator.data import EmulatorData
from keysync.emulator.directory import Directory
from keysync.emulator.endpoints import Endpoints
from keysync.emulator.faults import Faults
from keysync.emulator.handler import RequestHandler
from keysync.emulator.listeners import LOOPBACK, Listeners
from keysync.emulator.proxy import BATCH_DOMAIN, MAIN_HOSTS, QUEUE_DOMAIN, VAULT_DOMAIN, Proxy
from keysync.emulator.request_log import RequestLog, Served
from keysync.emulator.router import Router
from keysync.emulator.services.batch_data_plane import BatchDataPlane
from keysync.emulator.services.entra import Entra
from keysync.emulator.services.graph import Graph
from keysync.emulator.services.key_vault import KeyVault
from keysync.emulator.services.managed_identity import ManagedIdentities
from keysync.emulator.services.resource_manager import ResourceManager
from keysync.emulator.services.storage_queue import StorageQueue
from keysync.emulator.state import State
from keysync.emulator.throttle import TokenBuckets
from keysync.emulator.tls import Certificate
from keysync.emulator.tokens import Tokens
from keysync.startup import shrink_tls_buffers

_HTTPS = 443
_ACCOUNT_PORTS = 50
"""The number of accounts whose data plane gets a port of its own. More would use up the files that a process may open."""


class Emulator:
    """The embedded Azure on loopback, as an async context manager.

    `port` is the port of Entra and Resource Manager (0 for a free one), `latency` the delay of each reply in seconds.
    `limits` turns on Azure's throttling. The state is loaded from `state_directory` and saved to it on exit. `clock`
    returns seconds since 1970, for expiry, delays and throttling.
    """

    def __init__(
        self,
        data: EmulatorData | None = None,
        *,
        port: int = 0,
        latency: float = 0.0,
        limits: bool = False,
        state_directory: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._data = EmulatorData.sample() if data is None else data
        self._port = port
        self._clock = clock
        self._state_directory = state_directory
        self._buckets = TokenBuckets(clock) if limits else None
        self.state = State(self._data, clock)
        if state_directory is not None:
            store.load(self.state, state_directory)
        self.faults = Faults()
        for fault in (*(account.targeted_fault() for account in self._data.accounts), *self._data.faults):
            if fault is not None:
                self.faults.add(fault)
        self._log = RequestLog()
        directory = Directory(self._data.principals, self._data.tenant_id, self.state.tenants())
        self._access = Access(self.state.roles, directory)
        tokens = Tokens(clock, lifetime=self._data.token_lifetime, refresh_in=self._data.refresh_in)
        self._entra = Entra(directory, tokens, clock)
        self._router = Router(self._entra, Graph(directory, self._entra, clock))
        self._identity_header = secrets.token_urlsafe(24)
        identities = ManagedIdentities(directory, tokens, clock, self._identity_header)
        control = Control(self.state, self.faults, self._log, self._entra, identities)
        self._handler = RequestHandler(
            self.state, self._entra, self._router, control, faults=self.faults, log=self._log, latency=latency
        )
        self.hooks = self._handler.hooks
        self._listeners = Listeners()
        self._ports: set[int] = set()
        self._proxy = Proxy(self._port_of)
        self._certificate: Certificate | None = None

    @property
    def counts(self) -> Counter[str]:
        """The number of requests by operation."""
        return self._log.by_operation

    @property
    def requests(self) -> list[Served]:
        """Every request in the order of their replies."""
        return self._log.requests

    def revoke_tokens(self) -> None:
        """Revoke every token issued so far: the services refuse it with 401."""
        self._entra.tokens.revoke()

    @property
    def pending_effects(self) -> int:
        """The number of operations that will take effect after their replies (`delay` of a fault)."""
        return len(self._handler.pending_effects)

    async def __aenter__(self) -> Self:
        self._certificate = Certificate(self._host_names())
        try:
            self.endpoints = await self._start(self._certificate)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()
        if self._state_directory is not None:
            store.save(self.state, self._state_directory)

    async def _start(self, certificate: Certificate) -> Endpoints:
        shrink_tls_buffers()
        authority = await self._listen(certificate, self._port)
        self._router.default = ResourceManager(
            self.state,
            self._entra,
            self._access,
            vault_suffix=authority.removeprefix("https://"),
            page_size=self._data.page_size,
            graph_page_size=self._data.graph_page_size,
            buckets=self._buckets,
        ).route
        vaults = await self._start_vaults(certificate, authority)
        batch = await self._start_batch(certificate, authority)
        queues = await self._start_queues(certificate, authority)
        control = f"http://{LOOPBACK}:{await self._listeners.open(self._handler.serve_control, None)}"
        principal = min(
            self._data.principals, key=lambda each: (each.client_secret is None, each.type != "application")
        )
        return Endpoints(
            authority=authority,
            resource_manager=authority,
            ca_bundle=str(certificate.bundle),
            ca_pem=certificate.pem,
            tenant_id=self._data.tenant_id,
            client_id=principal.client_id,
            client_secret=principal.client_secret or "",
            identities={identity.name: identity.sign_in() for identity in self._data.principals},
            vaults=vaults,
            batch=batch,
            queues=queues,
            control=control,
            proxy=await self._proxy.open(),
            identity_endpoint=f"{control}/msi/token",
            identity_header=self._identity_header,
        )

    async def _start_vaults(self, certificate: Certificate, authority: str) -> dict[str, str]:
        """Serves each vault on a port of its own. Returns the URLs by name."""
        urls: dict[str, str] = {}
        for vault in self.state.vaults:
            service = KeyVault(
                vault,
                self._entra,
                self._access,
                self._clock,
                authority=authority,
                backups=self.state.backups,
                buckets=self._buckets,
            )
            urls[vault.name] = vault.url = await self._listen(certificate)
            self._router.add(service.route, port=_port(urls[vault.name]), host=f"{vault.name}.localhost")
        return urls

    async def _start_batch(self, certificate: Certificate, authority: str) -> str:
        """Serves the data plane on a port for all accounts, and on a port each for the first ones. Returns the first URL."""
        plane = BatchDataPlane(self.state, self._entra, self._access, authority)
        shared = await self._listen(certificate)
        self._router.add(plane.route, port=_port(shared))
        self.state.set_batch_endpoint(shared.removeprefix("https://"))
        for account in list(self.state.accounts.values())[:_ACCOUNT_PORTS]:
            url = await self._listen(certificate)
            self._router.add(partial(plane.route, account=account), port=_port(url))
            account.endpoint = url.removeprefix("https://")
        return shared

    async def _start_queues(self, certificate: Certificate, authority: str) -> dict[str, str]:
        """Serves the queues of all storage accounts on one port. Returns the URLs of queues by name."""
        url = await self._listen(certificate)
        self._queue_port = _port(url)
        self._router.add(StorageQueue(self.state, self._entra, self._access, authority).route, port=self._queue_port)
        return {queue.name: f"{url}/{queue.account}/{queue.name}" for queue in self._data.queues}

    def _host_names(self) -> set[str]:
        """The names for the certificate, beside localhost: of vaults, and of accounts by their regions; Azure's own names."""
        regions = {account.location.lower() for account in self.state.accounts.values()}
        return {
            *(f"{vault.name}.localhost" for vault in self.state.vaults),
            *(
                f"*.{region}.{domain}"
                for region in regions
                if region.isalnum()
                for domain in ("localhost", BATCH_DOMAIN)
            ),
            *MAIN_HOSTS,
            f"*.{VAULT_DOMAIN}",
            f"*.{QUEUE_DOMAIN}",
        }

    def _port_of(self, host: str, port: int) -> int | None:
        """The port for a host of Azure or of this machine, None if it is not served here."""
        if host in {"localhost", LOOPBACK, "::1"}:
            return port if port in self._ports else None
        name, _, domain = host.partition(".")
        if port != _HTTPS:
            return None
        if host in MAIN_HOSTS:
            return _port(self.endpoints.authority)
        if domain == VAULT_DOMAIN:
            urls = {vault.lower(): url for vault, url in self.endpoints.vaults.items()}
            return _port(urls[name]) if name in urls else None
        if domain == QUEUE_DOMAIN:
            return self._queue_port if name in self.state.queues.accounts else None
        accounts = [account for account in self.state.accounts.values() if account.name.lower() == name]
        if accounts and domain == f"{accounts[0].location.lower()}.{BATCH_DOMAIN}":
            return _port(accounts[0].endpoint)
        return None

    async def _listen(self, certificate: Certificate, port: int = 0) -> str:
        """Opens a listener for Azure's services. Returns its URL."""
        chosen = await self._listeners.open(self._handler.serve_azure, certificate.context, port)
        self._ports.add(chosen)
        return f"https://localhost:{chosen}"

    async def _stop(self) -> None:
        self._handler.close()
        await self._proxy.close()
        await self._listeners.close()
        if self._certificate is not None:
            self._certificate.remove()


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
