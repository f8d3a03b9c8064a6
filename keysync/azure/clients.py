"""The SDKs' aio clients over the shared transport, without the policies that keysync has its own of."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import (
    AsyncRetryPolicy,
    DistributedTracingPolicy,
    HttpLoggingPolicy,
    RequestIdPolicy,
    SansIOHTTPPolicy,
    UserAgentPolicy,
)

# The one policy that knows Key Vault's challenge has no public name; the contract tests hold it to what it does.
from azure.keyvault.secrets._shared import AsyncChallengeAuthPolicy
from azure.keyvault.secrets.aio import SecretClient
from azure.mgmt.batch.aio import BatchManagementClient
from azure.mgmt.core.policies import AsyncARMChallengeAuthenticationPolicy

from keysync import __version__
from keysync.azure.clouds import Endpoints
from keysync.azure.credentials import SingleFlightCredential
from keysync.azure.policies import ListPagePolicy, ReplyDatePolicy, SingleVaultPolicy
from keysync.azure.rate_limit import RateLimitHeaders
from keysync.azure.transport import SharedTransport

_UNAUTHORIZED: Final = 401
# Each client would make one of its own, 8 KB large, though none is in its pipeline.
_NO_RETRY: Final = AsyncRetryPolicy.no_retries()

if TYPE_CHECKING:
    from azure.mgmt.resourcegraph.aio import ResourceGraphClient


class RejectedTokens(SansIOHTTPPolicy[Any, Any]):
    """A policy of a client's pipeline, right behind the one that adds the token: reports a token that a service refuses.

    The policies of the SDKs drop a refused token of their own, and ask the credential for another: it must not return the
    same one from its cache.
    """

    def __init__(self, credential: SingleFlightCredential) -> None:
        self._credential = credential

    def on_response(self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]) -> None:
        """Rejects the token of a request that was answered with 401."""
        scheme, _, token = request.http_request.headers.get("Authorization", "").partition(" ")
        if response.http_response.status_code == _UNAUTHORIZED and scheme.lower() == "bearer":
            self._credential.reject(token)


class _ResourceManagerAuthentication(AsyncARMChallengeAuthenticationPolicy):
    """Sends a request that was refused with 401 once more, with a new token.

    The SDK's policy does so for a challenge with claims only; Key Vault's does so for each challenge.
    """

    async def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        response = await super().send(request)
        return await super().send(request) if response.http_response.status_code == _UNAUTHORIZED else response


class Clients:
    """Opens clients on the stack handed in: one a credential and subscription, one a vault.

    With `tracing` the calls of the Batch clients make spans too; those of the vaults' clients do wherever azure-core's own
    setting says so.
    """

    def __init__(
        self, stack: AsyncExitStack, endpoints: Endpoints, transport: SharedTransport, *, tracing: bool = False
    ) -> None:
        self._stack = stack
        self._endpoints = endpoints
        self._transport = transport
        self._tracing = tracing
        self._batch: dict[tuple[int, str], BatchManagementClient] = {}
        self._graph: dict[int, ResourceGraphClient] = {}

    async def batch(
        self, credential: SingleFlightCredential, subscription_id: str, api_version: str | None
    ) -> BatchManagementClient:
        """The Batch management client of one subscription, seen with one credential.

        Its pipeline has no redirects (a redirect could carry the token elsewhere), no retry (`keysync.azure.retry`) and
        no registration of resource providers, which would poll without a bound.
        """
        key = (id(credential), subscription_id)
        if key not in self._batch:
            client = BatchManagementClient(
                credential,
                subscription_id,
                base_url=self._endpoints.resource_manager,
                credential_scopes=[self._endpoints.resource_manager_scope],
                transport=self._transport,
                policies=self._resource_manager_policies(credential),
                retry_policy=_NO_RETRY,
                **_given(api_version),
            )
            self._batch[key] = await self._stack.enter_async_context(client)
        return self._batch[key]

    async def resource_graph(self, credential: SingleFlightCredential) -> ResourceGraphClient:
        """The Resource Graph client that sees with one credential; its pipeline is that of the Batch clients.

        Raises ImportError where the extra ``resource-graph`` is not installed.
        """
        from azure.mgmt.resourcegraph.aio import ResourceGraphClient  # noqa: PLC0415  # an extra

        key = id(credential)
        if key not in self._graph:
            client = ResourceGraphClient(
                credential,
                base_url=self._endpoints.resource_manager,
                credential_scopes=[self._endpoints.resource_manager_scope],
                transport=self._transport,
                policies=self._resource_manager_policies(credential),
            )
            self._graph[key] = await self._stack.enter_async_context(client)
        return self._graph[key]

    def _resource_manager_policies(self, credential: SingleFlightCredential) -> list[Any]:
        scope = self._endpoints.resource_manager_scope
        authentication = _ResourceManagerAuthentication(credential, scope)
        policies = self._policies(credential, authentication, RateLimitHeaders())
        return [ListPagePolicy(self._endpoints.resource_manager), *policies]

    def _policies(
        self,
        credential: SingleFlightCredential,
        authentication: Any,  # noqa: ANN401  # policies share no base class
        headers: Any,  # noqa: ANN401  # as above
    ) -> list[Any]:
        """No redirects, since one could carry the token elsewhere, and no retries: those are `keysync.azure.retry`'s."""
        return [
            RequestIdPolicy(),
            UserAgentPolicy(base_user_agent=f"keysync/{__version__}"),
            authentication,
            RejectedTokens(credential),
            headers,
            *([DistributedTracingPolicy()] if self._tracing else []),
            HttpLoggingPolicy(),
        ]

    async def secrets(
        self, credential: SingleFlightCredential, url: str, *, verify_challenge: bool, api_version: str | None
    ) -> SecretClient:
        """The client of one vault. Raises NotImplementedError for an api-version that the SDK does not know."""
        challenge = AsyncChallengeAuthPolicy(credential, verify_challenge_resource=verify_challenge)
        client = SecretClient(
            url,
            credential,
            transport=self._transport,
            policies=[SingleVaultPolicy(url), *self._policies(credential, challenge, ReplyDatePolicy())],
            retry_policy=_NO_RETRY,
            **_given(api_version),
        )
        return await self._stack.enter_async_context(client)


def _given(api_version: str | None) -> dict[str, Any]:
    return {} if api_version is None else {"api_version": api_version}
