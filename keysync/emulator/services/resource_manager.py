"""Azure Resource Manager: which provider serves a request.

A provider is a module with a class that fulfils `Provider`, and an entry in the constructor below. `gateway` has what Resource
Manager itself checks before, and `resources` its own operations.
"""

from __future__ import annotations

from keysync.emulator.access import Access
from keysync.emulator.services.arm import ArmRequest, Provider
from keysync.emulator.services.arm_errors import missing_version
from keysync.emulator.services.authorization import Authorization
from keysync.emulator.services.batch_accounts import BatchAccounts
from keysync.emulator.services.entra import Entra
from keysync.emulator.services.gateway import Gateway
from keysync.emulator.services.key_vaults import KeyVaults
from keysync.emulator.services.resource_graph import ResourceGraph
from keysync.emulator.services.resources import Resources
from keysync.emulator.state import State
from keysync.emulator.throttle import TokenBuckets
from keysync.emulator.wire import Call, Reply, Route


class ResourceManager:
    """The operations of Resource Manager on `state`."""

    def __init__(
        self,
        state: State,
        entra: Entra,
        access: Access,
        *,
        vault_suffix: str,
        page_size: int,
        graph_page_size: int,
        buckets: TokenBuckets | None,
    ) -> None:
        self._state = state
        self._vault_suffix = vault_suffix
        self._gateway = Gateway(state, entra, access, buckets)
        providers: list[Provider] = [
            BatchAccounts(state, self._gateway, page_size=page_size),
            KeyVaults(state, self._gateway, page_size=page_size),
            Authorization(state.roles, access.directory, self._gateway, page_size=page_size),
            ResourceGraph(state, self._gateway, buckets, page_size=graph_page_size),
        ]
        self._providers = {provider.namespace.lower(): provider for provider in providers}
        self._resources = Resources(state, self._gateway, self._providers, page_size=page_size)

    def route(self, call: Call) -> Route:
        """How to serve a call."""
        if [part.lower() for part in call.segments] == ["metadata", "endpoints"]:
            return Route("metadata", "", lambda: self._metadata(call))
        request = ArmRequest.of(call)
        provider = self._providers.get(request.namespace.lower()) if request.namespace else self._resources
        operation = provider.find(request) if provider is not None else None
        return Route(
            operation.name if operation is not None else "unknown",
            operation.target if operation is not None else call.raw_path,
            lambda: self._gateway.serve(request, provider, operation),
            authorize=lambda: self._gateway.authenticate(request),
        )

    def _metadata(self, call: Call) -> Reply:
        if not call.query.get("api-version"):
            return missing_version()
        return Reply(
            200,
            {
                "name": "keysync",
                "portal": call.base,
                "authentication": {
                    "loginEndpoint": call.base,
                    "audiences": [call.base],
                    "tenant": self._state.tenant_id,
                    "identityProvider": "AAD",
                },
                "resourceManager": call.base,
                "batch": call.base,
                "graph": call.base,
                "graphAudience": call.base,
                "microsoftGraphResourceId": call.base,
                "media": call.base,
                "gallery": call.base,
                "suffixes": {"keyVaultDns": self._vault_suffix},
            },
        )
