"""Makes the SDKs' aio clients on the shared transport, which stays open without them.

Their pipelines have no redirects, which could send the token elsewhere, and no retries, which `keysync.azure.retry` makes. They
do not register resource providers either, which would poll without a limit.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, map_error
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import AsyncRetryPolicy, DistributedTracingPolicy, HttpLoggingPolicy
from azure.core.rest import AsyncHttpResponse, HttpRequest
from azure.core.settings import settings

# Key Vault's challenge policy has no public name. The contract tests check what it does.
from azure.keyvault.secrets._shared import AsyncChallengeAuthPolicy
from azure.keyvault.secrets.aio import SecretClient
from azure.mgmt.batch.aio import BatchManagementClient
from azure.mgmt.core.policies import AsyncARMChallengeAuthenticationPolicy

from keysync.azure.clouds import Endpoints
from keysync.azure.policies import HostPolicy, ReplyPolicy
from keysync.azure.single_flight_credential import SingleFlightCredential
from keysync.azure.transport import SharedTransport

_OK: Final = 200
_UNAUTHORIZED: Final = 401
# Otherwise each client would make an unused policy of 8 KB.
_NO_RETRY: Final = AsyncRetryPolicy[Any, Any].no_retries()


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


def require_ok(response: AsyncHttpResponse) -> None:
    """Raises HttpResponseError, or a subclass by its status, unless `response` is a 200."""
    if response.status_code != _OK:
        map_error(response.status_code, response, {_UNAUTHORIZED: ClientAuthenticationError})
        raise HttpResponseError(response=response)


class VaultClient(SecretClient):
    """The SDK's client, whose `send_request` takes a tenth of the CPU time of a call less.

    The SDK copies each request, and formats and parses its URL several times.
    """

    async def send_request(
        self,
        request: HttpRequest,
        *,
        stream: bool = False,
        **kwargs: Any,  # noqa: ANN401  # the SDK's keywords
    ) -> AsyncHttpResponse:
        """The reply to `request`, whose URL may be relative to the vault's. Any status is a reply."""
        url = request.url if "://" in request.url else f"{self.vault_url}{request.url}"
        if "api-version=" not in url:
            url += f"{'&' if '?' in url else '?'}api-version={self.api_version}"
        request.url = url
        generated: Any = self._client
        response: AsyncHttpResponse = await generated._client.send_request(request, stream=stream, **kwargs)  # noqa: SLF001
        return response


def batch_client(
    credential: SingleFlightCredential,
    subscription_id: str,
    endpoints: Endpoints,
    transport: SharedTransport,
    api_version: str | None,
) -> BatchManagementClient:
    """The Batch management client for one subscription and credential."""
    scope = endpoints.resource_manager_scope
    version: dict[str, Any] = {} if api_version is None else {"api_version": api_version}
    return BatchManagementClient(
        credential,  # type: ignore[arg-type]  # the pipeline calls `get_token_info`
        subscription_id,
        base_url=endpoints.resource_manager,
        credential_scopes=[scope],
        transport=transport,
        policies=[
            # A region's Resource Manager links to its own host.
            HostPolicy(endpoints.resource_manager, "Resource Manager", subdomains=True),
            _ResourceManagerAuthentication(credential, scope),
            *_last_policies(credential),
        ],
        retry_policy=_NO_RETRY,
        **version,
    )


def vault_client(
    credential: SingleFlightCredential,
    url: str,
    transport: SharedTransport,
    *,
    verify_challenge: bool,
    api_version: str | None,
) -> SecretClient:
    """The client of one vault. Raises NotImplementedError for an api-version that the SDK does not support."""
    version: dict[str, Any] = {} if api_version is None else {"api_version": api_version}
    return VaultClient(
        url,
        credential,  # type: ignore[arg-type]  # as above
        transport=transport,
        policies=[
            HostPolicy(url, "the vault"),
            AsyncChallengeAuthPolicy(credential, verify_challenge_resource=verify_challenge),
            *_last_policies(credential),
        ],
        retry_policy=_NO_RETRY,
        **version,
    )


def _last_policies(credential: SingleFlightCredential) -> list[Any]:
    """A policy costs time in each call. Tracing and the log level are set before clients are opened."""
    logged = logging.getLogger("azure.core.pipeline.policies.http_logging_policy").isEnabledFor(logging.INFO)
    return [
        ReplyPolicy(credential),
        *([DistributedTracingPolicy()] if settings.tracing_enabled() else []),
        *([HttpLoggingPolicy()] if logged else []),
    ]
