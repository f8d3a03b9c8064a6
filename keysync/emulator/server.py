"""The servers: one HTTPS port for Entra and Resource Manager, one for each vault, and the control address."""

from __future__ import annotations

import asyncio
import errno
import json
import re
import secrets
import socket
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from keysync.emulator import store
from keysync.emulator.control import Control
from keysync.emulator.data import EmulatorData
from keysync.emulator.fault_injection import effect_first, faulty_reply, hang, reset, truncate
from keysync.emulator.faults import Fault, Faults
from keysync.emulator.hooks import Hooks
from keysync.emulator.request_log import RequestLog, Served
from keysync.emulator.services.entra import Entra
from keysync.emulator.services.key_vault import CHANGES, KeyVault
from keysync.emulator.services.resource_manager import ResourceManager
from keysync.emulator.state import State
from keysync.emulator.throttle import TokenBuckets
from keysync.emulator.tls import Certificate
from keysync.emulator.wire import Call, Refused, Reply, Route
from keysync.startup import shrink_tls_buffers

_LOOPBACK = "127.0.0.1"
_BIND_ATTEMPTS = 20
_SHUTDOWN_SECONDS = 0.5
"""How long requests in flight may take to finish when the server closes, in seconds."""


@dataclass(frozen=True)
class Endpoints:
    """The addresses of all services, and the credentials to use them."""

    authority: str
    resource_manager: str
    ca_bundle: str
    ca_pem: str
    tenant_id: str
    client_id: str
    client_secret: str
    vaults: dict[str, str]
    control: str
    identity_endpoint: str
    identity_header: str

    def ready_file(self) -> bytes:
        """The content of the ready file (JSON)."""
        fields = asdict(self)
        del fields["ca_pem"]
        return (json.dumps(fields, indent=2) + "\n").encode()


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
        self._latency = latency
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
        self.hooks = Hooks()
        self._log = RequestLog()
        self._entra = Entra(self._data, self.state.tenants(), clock)
        self._by_port: dict[int, KeyVault] = {}
        self._by_host: dict[str, KeyVault] = {}
        self._runners: list[web.ServerRunner] = []
        self._pending_effects: set[asyncio.TimerHandle] = set()
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
        self._entra.revoke()

    @property
    def pending_effects(self) -> int:
        """The number of operations that will take effect after their replies (`delay` of a fault)."""
        return len(self._pending_effects)

    async def __aenter__(self) -> Self:
        self._closing = asyncio.Event()
        self._certificate = Certificate(f"{vault.name}.localhost" for vault in self.state.vaults)
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
        identity_header = secrets.token_urlsafe(24)
        self._control = Control(self.state, self.faults, self._log, self._entra, identity_header)
        azure = await self._runner(self._serve_azure)
        main = await self._listen(azure, certificate, self._port)
        authority = f"https://localhost:{main}"
        self._arm = ResourceManager(
            self.state,
            self._entra,
            vault_suffix=f"localhost:{main}",
            page_size=self._data.page_size,
            graph_page_size=self._data.graph_page_size,
            buckets=self._buckets,
        )
        vaults: dict[str, str] = {}
        for vault in self.state.vaults:
            service = KeyVault(vault, self._entra, self._clock, authority=authority, buckets=self._buckets)
            port = await self._listen(azure, certificate, 0)
            self._by_port[port] = service
            self._by_host[f"{vault.name.lower()}.localhost"] = service
            vaults[vault.name] = f"https://localhost:{port}"
        control = f"http://{_LOOPBACK}:{await self._listen(await self._runner(self._serve_control), None, 0)}"
        return Endpoints(
            authority=authority,
            resource_manager=authority,
            ca_bundle=str(certificate.bundle),
            ca_pem=certificate.pem,
            tenant_id=self._data.tenant_id,
            client_id=self._data.client_id,
            client_secret=self._data.client_secret,
            vaults=vaults,
            control=control,
            identity_endpoint=f"{control}/msi/token",
            identity_header=identity_header,
        )

    async def _runner(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> web.ServerRunner:
        # Handler cancellation ends a hanging request when its client disconnects.
        server = web.Server(handler, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        self._runners.append(runner)
        return runner

    async def _listen(self, runner: web.ServerRunner, certificate: Certificate | None, port: int) -> int:
        context = None if certificate is None else certificate.context
        listeners = _bind_loopback(port)
        for listener in listeners:
            await web.SockSite(runner, listener, ssl_context=context, backlog=1024).start()
        return int(listeners[0].getsockname()[1])

    async def _stop(self) -> None:
        self._closing.set()
        for effect in self._pending_effects:
            effect.cancel()
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()
        if self._certificate is not None:
            self._certificate.remove()

    async def _serve_azure(self, request: web.BaseRequest) -> web.StreamResponse:
        call = await _call(request, "https")
        route = self._route(call, request)
        operation = "challenge" if route.service == "vault" and call.bearer is None else route.operation
        after = await self.hooks.before(operation, route.target)
        response = await self._answer(request, call, route, operation)
        await after()
        return response

    async def _answer(self, request: web.BaseRequest, call: Call, route: Route, operation: str) -> web.StreamResponse:
        refusal = route.authorize()
        if refusal is not None:
            return self._send(call, route, refusal, operation=operation)
        fault = self.faults.take(route.operation, route.target)
        if self._latency:
            await asyncio.sleep(self._latency)
        limit_headers: dict[str, str] = {}
        if fault is None:
            reply = route.limit(limit_headers) or _carry_out(route)
            reply.headers = {**limit_headers, **reply.headers}
            return self._send(call, route, reply)
        return await self._inject(request, call, route, fault)

    async def _inject(self, request: web.BaseRequest, call: Call, route: Route, fault: Fault) -> web.StreamResponse:
        if fault.kind in {"misrouted", "stale", "ignored"}:
            return self._send(call, route, self._valid_looking_reply(request, call, route, fault))
        real = None
        if fault.delay and fault.after:
            self._carry_out_later(route, fault.delay)
        elif effect_first(fault):
            real = _carry_out(route)
        if fault.kind in {"reset", "hang"}:
            self._log.record(route.operation, route.target, 0)
            if fault.kind == "hang":
                await hang(request, self._closing)
            else:
                reset(request)
            return web.Response(status=500)  # never sent: the connection is closed
        if fault.kind == "truncated" and real is not None:
            self._log.record(route.operation, route.target, 0)
            return await truncate(request, real)
        return self._send(call, route, faulty_reply(fault, real, call, route.service, self._entra))

    def _carry_out_later(self, route: Route, delay: float) -> None:
        def effect() -> None:
            self._pending_effects.discard(timer)
            _carry_out(route)

        timer = asyncio.get_running_loop().call_later(delay, effect)
        self._pending_effects.add(timer)

    def _valid_looking_reply(self, request: web.BaseRequest, call: Call, route: Route, fault: Fault) -> Reply:
        """The reply of a fault whose reply a client cannot recognise as an error."""
        owner, _, name = route.target.partition("/")
        if fault.kind == "misrouted":
            if route.operation in CHANGES:
                _carry_out(route)
                call = replace(call, method="GET", raw_path=f"/secrets/{name}", body=b"")
            path = re.sub(
                rf"(?<=/){re.escape(name or owner)}(?=/|$)", fault.other or "", call.raw_path, flags=re.IGNORECASE
            )
            return _carry_out(self._route(replace(call, raw_path=path), request))
        vault = self.state.vault(owner)
        before = vault.copy_of(name)
        reply = _carry_out(route)
        if fault.kind == "stale":
            vault.serve_stale(name, before, fault.reads)
        else:
            vault.replace(name, before)
        return reply

    def _route(self, call: Call, request: web.BaseRequest) -> Route:
        port = request.transport.get_extra_info("sockname")[1] if request.transport is not None else 0
        host = call.base.removeprefix("https://").rpartition(":")[0].lower()
        vault = self._by_port.get(port) or self._by_host.get(host)
        if vault is not None:
            return vault.route(call)
        return self._entra.route(call) or self._arm.route(call)

    def _send(self, call: Call, route: Route, reply: Reply, *, operation: str | None = None) -> web.Response:
        self._log.record(operation or route.operation, route.target, reply.status)
        return _response(call, route.service, reply, (route.now or self._clock)())

    async def _serve_control(self, request: web.BaseRequest) -> web.StreamResponse:
        call = await _call(request, "http")
        if call.segments == ["msi", "token"]:
            route = Route("token", "managed identity", lambda: self._control.managed_identity(call), service="entra")
            fault = self.faults.take(route.operation, route.target)
            if fault is not None:
                return await self._inject(request, call, route, fault)
            return self._send(call, route, _carry_out(route))
        return _response(call, "control", self._control.answer(call), self._clock())


def _bind_loopback(port: int) -> list[socket.socket]:
    """Listeners on 127.0.0.1 and, if the machine has IPv6, on the same port of ::1: `localhost` can mean either."""
    for _ in range(_BIND_ATTEMPTS):
        first = _bind(socket.AF_INET, _LOOPBACK, port)
        try:
            return [first, _bind(socket.AF_INET6, "::1", int(first.getsockname()[1]))]
        except OSError as failure:
            if failure.errno != errno.EADDRINUSE or port:
                return [first]
            first.close()  # another process uses this port on ::1: try another free port
    raise OSError(errno.EADDRINUSE, "no port is free on both 127.0.0.1 and ::1")


def _bind(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


async def _call(request: web.BaseRequest, scheme: str) -> Call:
    return Call(
        method=request.method,
        raw_path=request.rel_url.raw_path,
        query=request.rel_url.query,
        headers=request.headers,
        body=await request.read() if request.body_exists else b"",
        base=f"{scheme}://{request.host}",
    )


def _carry_out(route: Route) -> Reply:
    try:
        return route.run()
    except Refused as refused:
        return refused.reply


def _response(call: Call, service: str, reply: Reply, now: float) -> web.Response:
    headers = {
        "x-ms-request-id": str(uuid.uuid4()),
        "Cache-Control": "no-cache",
        "Date": formatdate(now, usegmt=True),
    }
    if service == "arm":
        headers["x-ms-correlation-request-id"] = call.headers.get("x-ms-correlation-request-id") or str(uuid.uuid4())
    if service == "vault":
        headers["x-ms-keyvault-region"] = "westeurope"
        headers["x-ms-keyvault-service-version"] = "1.9.0.0"
    if sent := call.headers.get("x-ms-client-request-id"):
        headers["x-ms-client-request-id"] = sent
    headers.update(reply.headers)
    payload = reply.payload()
    if payload:
        headers.setdefault("Content-Type", "application/json; charset=utf-8")
    if reply.status == web.HTTPNoContent.status_code:
        return web.Response(status=reply.status, headers=headers)
    return web.Response(status=reply.status, body=payload, headers=headers)
