"""Makes the SDKs' aio clients on the shared transport, which stays open without them.

Their pipelines have no redirects, which could send the token elsewhere, and no retries, which `keysync.azure.retry` makes. They
do not register resource providers either, which would poll without a limit.
"""

from __future__ import annotations

import logging
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, map_error
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import (
    AsyncHTTPPolicy,
    AsyncRetryPolicy,
    DistributedTracingPolicy,
    HttpLoggingPolicy,
    UserAgentPolicy,
)
from azure.core.rest import AsyncHttpResponse, HttpRequest
from azure.core.settings import settings

# Key Vault's challenge policy has no public name. The contract tests check what it does.
from azure.keyvault.secrets._shared import AsyncChallengeAuthPolicy
from azure.keyvault.secrets.aio import SecretClient
from azure.mgmt.batch.aio import BatchManagementClient
from azure.mgmt.core.policies import AsyncARMChallengeAuthenticationPolicy

from keysync import __version__
from keysync.azure.credentials import Endpoints
from keysync.azure.rate_limit import ON_REPLY
from keysync.azure.single_flight_credential import SingleFlightCredential
from keysync.azure.transport import SharedTransport
from keysync.failures import invalid_response

_OK: Final = 200
_UNAUTHORIZED: Final = 401
# Otherwise each client would make an unused policy of 8 KB.
_NO_RETRY: Final = AsyncRetryPolicy[Any, Any].no_retries()


def require_ok(response: AsyncHttpResponse) -> None:
    """Raises HttpResponseError, or a subclass by its status, unless `response` is a 200."""
    if response.status_code != _OK:
        map_error(response.status_code, response, {_UNAUTHORIZED: ClientAuthenticationError})
        raise HttpResponseError(response=response)


class HostPolicy(AsyncHTTPPolicy[Any, Any]):
    """The first policy: only the `service` at `url` gets the token. Adds the headers that identify keysync and the request.

    It does the work of several policies of azure-core, each of which costs 10 to 40 µs a request.
    """

    def __init__(self, url: str, service: str, *, subdomains: bool = False) -> None:
        super().__init__()
        self._prefix = url.rstrip("/") + "/"
        self._service = service
        self._origin = _origin(url)
        self._suffix = f".{self._origin[1]}" if subdomains else None
        self._user_agent = UserAgentPolicy(base_user_agent=f"keysync/{__version__}").user_agent

    def check(self, url: str) -> None:
        """Raises CallFailed for a URL of another host, port or scheme."""
        if url.startswith(self._prefix):
            return
        scheme, host, port = _origin(url)
        if self._suffix is not None and host.endswith(self._suffix):
            host = self._origin[1]
        if (scheme, host, port) != self._origin:
            raise invalid_response(
                f"a link to the next page leads to {urlsplit(url).hostname}, which is not {self._service}: not followed"
            )

    async def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        """Sends the request to the next policy, which adds the token. Raises CallFailed for another service."""
        self.check(request.http_request.url)
        headers = request.http_request.headers
        headers["User-Agent"] = self._user_agent
        headers["x-ms-client-request-id"] = str(uuid4())
        return await self.next.send(request)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else None)


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


class _ReplyPolicy(AsyncHTTPPolicy[Any, Any]):
    """The policy after the one that adds the token: reports a refused token to the credential, and headers to `ON_REPLY`.

    After a 401 the SDKs' policies ask the credential for another token, which must not be the same one from its cache.
    """

    def __init__(self, credential: SingleFlightCredential) -> None:
        super().__init__()
        self._credential = credential

    async def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        response = await self.next.send(request)
        reply, on_reply = response.http_response, ON_REPLY.get()
        if on_reply is not None:
            on_reply(reply.headers)
        if reply.status_code == _UNAUTHORIZED:
            scheme, _, token = request.http_request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() == "bearer":
                self._credential.reject(token)
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


def batch_client(
    credential: SingleFlightCredential,
    subscription_id: str,
    endpoints: Endpoints,
    transport: SharedTransport,
    api_version: str | None,
) -> BatchManagementClient:
    """The Batch management client for one subscription and credential."""
    scope = endpoints.resource_manager_scope
    # A region's Resource Manager links to its own host.
    host = HostPolicy(endpoints.resource_manager, "Resource Manager", subdomains=True)
    return BatchManagementClient(
        credential,  # type: ignore[arg-type]  # the pipeline calls `get_token_info`
        subscription_id,
        base_url=endpoints.resource_manager,
        credential_scopes=[scope],
        **_options(credential, [host, _ResourceManagerAuthentication(credential, scope)], transport, api_version),
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
    authentication = AsyncChallengeAuthPolicy(credential, verify_challenge_resource=verify_challenge)
    return VaultClient(
        url,
        credential,  # type: ignore[arg-type]  # as above
        **_options(credential, [HostPolicy(url, "the vault"), authentication], transport, api_version),
    )


def _options(
    credential: SingleFlightCredential, first: list[Any], transport: SharedTransport, api_version: str | None
) -> dict[str, Any]:
    """The options of a client with the policies `first`. Tracing and the log level are set before clients are opened."""
    policies = [*first, _ReplyPolicy(credential)]  # each costs time in each call
    if settings.tracing_enabled():
        policies.append(DistributedTracingPolicy[Any, Any]())
    if logging.getLogger("azure.core.pipeline.policies.http_logging_policy").isEnabledFor(logging.INFO):
        policies.append(HttpLoggingPolicy())
    version = {} if api_version is None else {"api_version": api_version}
    return {"transport": transport, "policies": policies, "retry_policy": _NO_RETRY, **version}
