"""Opens the SDKs' aio clients on the shared transport, with keysync's own retry and rate limit instead of the SDKs'."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, Final

from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import (
    AsyncRetryPolicy,
    DistributedTracingPolicy,
    HttpLoggingPolicy,
    RequestIdPolicy,
    SansIOHTTPPolicy,
    UserAgentPolicy,
)
from azure.core.settings import settings

# Key Vault's challenge policy has no public name. The contract tests check what it does.
from azure.keyvault.secrets._shared import AsyncChallengeAuthPolicy
from azure.keyvault.secrets.aio import SecretClient
from azure.mgmt.batch.aio import BatchManagementClient
from azure.mgmt.core.policies import AsyncARMChallengeAuthenticationPolicy

from keysync import __version__
from keysync.azure.clouds import Endpoints
from keysync.azure.policies import ListPagePolicy, ReplyDatePolicy, SingleVaultPolicy
from keysync.azure.rate_limit import RateLimitHeaders
from keysync.azure.single_flight_credential import SingleFlightCredential
from keysync.azure.transport import SharedTransport

_UNAUTHORIZED: Final = 401
# Otherwise each client would make an unused policy of 8 KB.
_NO_RETRY: Final = AsyncRetryPolicy[Any, Any].no_retries()


class RejectedTokens(SansIOHTTPPolicy[Any, Any]):
    """A pipeline policy after the one that adds the token: reports a refused token to the credential.

    After a 401 the SDKs' policies ask the credential for another token, which must not be the same one from its cache.
    """

    def __init__(self, credential: SingleFlightCredential) -> None:
        self._credential = credential

    def on_response(self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]) -> None:
        """Rejects the token of a request whose reply is a 401."""
        scheme, _, token = request.http_request.headers.get("Authorization", "").partition(" ")
        if response.http_response.status_code == _UNAUTHORIZED and scheme.lower() == "bearer":
            self._credential.reject(token)


class _ResourceManagerAuthentication(AsyncARMChallengeAuthenticationPolicy):
    """Sends a request once more, with a new token, after a 401.

    The SDK's policy does that only for a challenge with claims; Key Vault's does it for each challenge.
    """

    async def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        sdk_policy: Any = super()  # the SDK's annotations are incomplete
        response: PipelineResponse[Any, Any] = await sdk_policy.send(request)
        if response.http_response.status_code == _UNAUTHORIZED:
            response = await sdk_policy.send(request)
        return response


class Clients:
    """Opens clients on `stack`: one per credential and subscription, one per vault."""

    def __init__(self, stack: AsyncExitStack, endpoints: Endpoints, transport: SharedTransport) -> None:
        self._stack = stack
        self._endpoints = endpoints
        self._transport = transport
        self._batch: dict[tuple[int, str], BatchManagementClient] = {}

    async def batch(
        self, credential: SingleFlightCredential, subscription_id: str, api_version: str | None
    ) -> BatchManagementClient:
        """The Batch management client for one subscription and credential.

        Its pipeline does not register resource providers, which would poll without a limit.
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

    def _resource_manager_policies(self, credential: SingleFlightCredential) -> list[Any]:
        scope = self._endpoints.resource_manager_scope
        authentication = _ResourceManagerAuthentication(credential, scope)
        policies = self._policies(credential, authentication, RateLimitHeaders())
        return [ListPagePolicy(self._endpoints.resource_manager), *policies]

    def _policies(
        self,
        credential: SingleFlightCredential,
        authentication: Any,  # noqa: ANN401  # policies have no common base class
        headers: Any,  # noqa: ANN401  # as above
    ) -> list[Any]:
        """Without redirects, which could send the token elsewhere, and without retries, which `keysync.azure.retry` makes."""
        return [
            RequestIdPolicy(),
            UserAgentPolicy(base_user_agent=f"keysync/{__version__}"),
            authentication,
            RejectedTokens(credential),
            headers,
            # A policy costs time in each call. `keysync.report.tracing` sets this before clients are opened.
            *([DistributedTracingPolicy()] if settings.tracing_enabled() else []),
            HttpLoggingPolicy(),
        ]

    async def secrets(
        self, credential: SingleFlightCredential, url: str, *, verify_challenge: bool, api_version: str | None
    ) -> SecretClient:
        """The client of one vault. Raises NotImplementedError for an api-version that the SDK does not support."""
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
