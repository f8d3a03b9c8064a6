"""Pipeline policies: keep requests at their service, and pass on the headers of replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import AsyncHTTPPolicy, UserAgentPolicy

from keysync import __version__
from keysync.azure.single_flight_credential import SingleFlightCredential
from keysync.failures import CallFailed, FailureRecord

ON_REPLY: Final[ContextVar[Callable[[Mapping[str, str]], None] | None]] = ContextVar("on_reply", default=None)
"""Called with the headers of each reply, of any status, to the current task's calls."""

_UNAUTHORIZED: Final = 401


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
            message = (
                f"a link to the next page leads to {urlsplit(url).hostname}, which is not {self._service}: not followed"
            )
            raise CallFailed(FailureRecord(kind="invalid_response", summary=message))

    async def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        """Sends the request to the next policy, which adds the token. Raises CallFailed for another service."""
        self.check(request.http_request.url)
        headers = request.http_request.headers
        headers["User-Agent"] = self._user_agent
        headers["x-ms-client-request-id"] = str(uuid4())
        return await self.next.send(request)


class ReplyPolicy(AsyncHTTPPolicy[Any, Any]):
    """The policy after the one that adds the token: reports a refused token to the credential, and headers to `ON_REPLY`.

    After a 401 the SDKs' policies ask the credential for another token, which must not be the same one from its cache.
    """

    def __init__(self, credential: SingleFlightCredential) -> None:
        super().__init__()
        self._credential = credential

    async def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        """Sends the request to the next policy."""
        response = await self.next.send(request)
        reply, on_reply = response.http_response, ON_REPLY.get()
        if on_reply is not None:
            on_reply(reply.headers)
        if reply.status_code == _UNAUTHORIZED:
            scheme, _, token = request.http_request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() == "bearer":
                self._credential.reject(token)
        return response


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else None)
