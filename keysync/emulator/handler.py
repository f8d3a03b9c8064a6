"""Serves one request: authorization, hooks, faults, limits, then the operation, and the log of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from aiohttp import web

from keysync.emulator.control import Control
from keysync.emulator.fault_injection import effect_first, faulty_reply, hang, misrouted_call, reset, truncate
from keysync.emulator.faults import Fault, Faults
from keysync.emulator.hooks import Hooks
from keysync.emulator.http_messages import read_call, response_of
from keysync.emulator.request_log import RequestLog
from keysync.emulator.resource_actions import action_of
from keysync.emulator.router import Router
from keysync.emulator.services.entra import Entra
from keysync.emulator.services.managed_identity import IMDS_PATH
from keysync.emulator.state import State
from keysync.emulator.wire import Call, Refused, Reply, Route


class RequestHandler:
    """Serves the requests of all listeners. `latency` is the delay of each reply of a service in seconds."""

    def __init__(
        self,
        state: State,
        entra: Entra,
        router: Router,
        control: Control,
        *,
        faults: Faults,
        log: RequestLog,
        latency: float,
    ) -> None:
        self.hooks = Hooks()
        self.pending_effects: set[asyncio.TimerHandle] = set()
        self._state = state
        self._entra = entra
        self._router = router
        self._control = control
        self._faults = faults
        self._log = log
        self._latency = latency
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Drop the connections of hanging requests, and cancel the pending effects."""
        self._closing.set()
        for effect in self.pending_effects:
            effect.cancel()

    async def serve_azure(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve a request to one of Azure's services."""
        call = await read_call(request, "https")
        route = self._reported(call, self._router.route(call, request))
        operation = "challenge" if route.service == "vault" and call.bearer is None else route.operation
        after = await self.hooks.before(operation, route.target)
        response = await self._answer(request, call, route, operation)
        await after()
        return response

    async def serve_control(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve a request to the control address, which also has the endpoints of managed identities."""
        call = await read_call(request, "http")
        if call.segments in (["msi", "token"], list(IMDS_PATH)):
            route = Route("token", "managed identity", lambda: self._control.answer(call), service="entra")
            fault = self._faults.take(route.operation, route.target)
            if fault is not None:
                return await self._inject(request, call, route, fault)
            return self._send(call, route, _carry_out(route))
        return response_of(call, "control", self._control.answer(call), self._state.clock())

    def _reported(self, call: Call, route: Route) -> Route:
        """The route whose success Event Grid reports, if it is an action of Resource Manager."""
        action = action_of(call) if route.service == "arm" and self._state.events.subscriptions else None
        if action is None:
            return route

        def run() -> Reply:
            reply = route.run()
            if reply.status < 300:
                self._state.events.publish(action)
            return reply

        return replace(route, run=run)

    async def _answer(self, request: web.BaseRequest, call: Call, route: Route, operation: str) -> web.StreamResponse:
        refusal = route.authorize()
        if refusal is not None:
            return self._send(call, route, refusal, operation=operation)
        fault = self._faults.take(route.operation, route.target)
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
        return self._send(call, route, faulty_reply(fault, real, call, route, self._entra))

    def _carry_out_later(self, route: Route, delay: float) -> None:
        def effect() -> None:
            self.pending_effects.discard(timer)
            _carry_out(route)

        timer = asyncio.get_running_loop().call_later(delay, effect)
        self.pending_effects.add(timer)

    def _valid_looking_reply(self, request: web.BaseRequest, call: Call, route: Route, fault: Fault) -> Reply:
        """The reply of a fault whose reply a client cannot recognise as an error."""
        if fault.kind == "misrouted":
            other = misrouted_call(call, route, fault.other or "")
            if other.method != call.method or route.operation == "regenerateKeys":
                _carry_out(route)
            return _carry_out(self._router.route(other, request))
        owner, _, name = route.target.partition("/")
        vault = self._state.vault(owner)
        before = vault.copy_of(name)
        reply = _carry_out(route)
        if fault.kind == "stale":
            vault.serve_stale(name, before, fault.reads)
        else:
            vault.replace(name, before)
        return reply

    def _send(self, call: Call, route: Route, reply: Reply, *, operation: str | None = None) -> web.Response:
        self._log.record(operation or route.operation, route.target, reply.status)
        reply.headers = {**route.headers, **reply.headers}
        response = response_of(call, route.service, reply, (route.now or self._state.clock)())
        if self.hooks.on_exchange is not None:
            self.hooks.on_exchange(call, response)
        return response


def _carry_out(route: Route) -> Reply:
    try:
        return route.run()
    except Refused as refused:
        return refused.reply
