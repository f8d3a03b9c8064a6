"""Which service a request is for, by its port or its host, else by its path."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from keysync.emulator.services.entra import Entra
from keysync.emulator.services.graph import Graph
from keysync.emulator.wire import Call, Route

Service = Callable[[Call], Route]
"""Returns how to serve a call."""


class Router:
    """The services with a port or a host name of their own. Other requests are for Entra, Graph, or `default`."""

    default: Service

    def __init__(self, entra: Entra, graph: Graph) -> None:
        self._entra = entra
        self._graph = graph
        self._by_port: dict[int, Service] = {}
        self._by_host: dict[str, Service] = {}

    def add(self, service: Service, *, port: int, host: str | None = None) -> None:
        """Send requests to `port`, and on any port those to `host`, to `service`."""
        self._by_port[port] = service
        if host is not None:
            self._by_host[host.lower()] = service

    def route(self, call: Call, request: web.BaseRequest) -> Route:
        """How to serve a call that arrived as `request`."""
        port = request.transport.get_extra_info("sockname")[1] if request.transport is not None else 0
        host = call.base.removeprefix("https://").rpartition(":")[0].lower()
        service = self._by_port.get(port) or self._by_host.get(host)
        if service is not None:
            return service(call)
        return self._entra.route(call) or self._graph.route(call) or self.default(call)
