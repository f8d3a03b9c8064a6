"""Makes the SDKs' aio clients on the shared transport, which stays open without them.

Their pipelines have no redirects, which could send the token elsewhere, and no retries, which `keysync.azure.retry` makes. They
do not register resource providers either, which would poll without a limit.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from azure.core import AsyncPipelineClient
from azure.core.exceptions import ClientAuthenticationError, DecodeError, HttpResponseError, map_error
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import AsyncRetryPolicy, DistributedTracingPolicy, HttpLoggingPolicy
from azure.core.rest import AsyncHttpResponse, HttpRequest
from azure.core.settings import settings

# Key Vault's challenge policy has no public name. The contract tests check what it does.
from azure.keyvault.secrets._shared import AsyncChallengeAuthPolicy
from azure.keyvault.secrets.aio import SecretClient
from azure.mgmt.core.policies import AsyncARMChallengeAuthenticationPolicy

from keysync.azure.clouds import Endpoints
from keysync.azure.policies import HostPolicy, ReplyPolicy
from keysync.azure.single_flight_credential import SingleFlightCredential
from keysync.azure.transport import SharedTransport
from keysync.json_values import as_mapping

BATCH_API_VERSION: Final = "2025-06-01"
"""The version of Batch management that the SDK uses too, unless the configuration pins another."""

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


@dataclass(frozen=True, slots=True)
class ResourceManager:
    """Sends requests to Resource Manager with one credential. `api_version` is that of Batch management.

    The SDK's client of Batch management takes a quarter of the time of all imports (0.3 s), and its models take thirty times as
    long as parsing JSON.
    """

    pipeline: AsyncPipelineClient[HttpRequest, AsyncHttpResponse]
    api_version: str

    async def send(self, request: HttpRequest) -> AsyncHttpResponse:
        """The reply to a request, whose URL may be relative. Raises HttpResponseError unless it is a 200."""
        request.headers["Accept"] = "application/json"
        request.url = self.pipeline.format_url(request.url)
        response = await self.pipeline.send_request(request)
        if response.status_code != _OK:
            map_error(response.status_code, response, {_UNAUTHORIZED: ClientAuthenticationError})
            raise HttpResponseError(response=response)
        return response

    async def batch(self, method: str, path: str) -> Mapping[str, object]:
        """The JSON object in the reply of Batch management; `path` begins with an ARM id."""
        response = await self.send(HttpRequest(method, f"{quote(path)}?api-version={self.api_version}"))
        reply = as_mapping(response.json())
        if reply is None:
            raise DecodeError("the reply is no JSON object", response=response)
        return reply


def resource_manager(
    credential: SingleFlightCredential, endpoints: Endpoints, transport: SharedTransport, api_version: str | None
) -> ResourceManager:
    """The client of Resource Manager for one credential."""
    pipeline = AsyncPipelineClient[HttpRequest, AsyncHttpResponse](
        endpoints.resource_manager,
        transport=transport,
        policies=[
            # A region's Resource Manager links to its own host.
            HostPolicy(endpoints.resource_manager, "Resource Manager", subdomains=True),
            _ResourceManagerAuthentication(credential, endpoints.resource_manager_scope),
            *_last_policies(credential),
        ],
    )
    return ResourceManager(pipeline, api_version or BATCH_API_VERSION)


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
