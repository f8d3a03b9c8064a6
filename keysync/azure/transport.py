"""The aiohttp session that all clients and credentials share, with one TLS context and a cached proxy per host."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from azure.core.pipeline.transport import AioHttpTransport

from keysync.azure.body import load_body
from keysync.http.lost_reply import ReplyLost
from keysync.http.proxy import Proxies, Proxy, ProxyFailed
from keysync.http.sockets import Sockets
from keysync.http.tls import tls_context
from keysync.secret.redact import Redactor
from keysync.startup import shrink_tls_buffers

# Longer than any wait between two calls to one host in a run; short, so that a run over hundreds of vaults soon frees its connections.
_KEEP_ALIVE_SECONDS: Final = 5.0


class SharedTransport(AioHttpTransport):  # type: ignore[misc]  # the SDK exports it by a module's __getattr__, without a type
    """The SDKs' transport on a shared session, which stays open when a client is closed. The caller sets the deadline.

    The SDK would look up proxy and netrc for each request, in two other threads. This class looks up the proxy once per host.
    """

    def __init__(self, session: aiohttp.ClientSession, proxies: Proxies, *, connect_seconds: float) -> None:
        base: Any = super()  # has no type, see above
        # Without a read timeout: aiohttp would start and stop two timers for it in each call.
        base.__init__(
            session=session,
            session_owner=False,
            use_env_settings=False,
            connection_timeout=connect_seconds,
            read_timeout=None,
        )
        self._proxies = proxies
        self._proxies_by_host: dict[str, Proxy | None] = {}

    async def send(self, request: Any, **config: Any) -> Any:  # noqa: ANN401  # the base class's own types
        """Sends one request through the proxy of its host, and loads the reply within the limits of `keysync.azure.body`.

        Raises UnreadableBody for a success reply whose body exceeds a limit.
        """
        config.pop("proxies", None)
        proxy = self.proxy_for(request.url)
        if proxy is not None:
            config |= {"proxy": proxy.url, "proxy_headers": proxy.headers}
        base: Any = super()  # has no type, see above
        response = await base.send(request, **{**config, "stream": True})
        await load_body(response)
        return response

    def proxy_for(self, url: str) -> Proxy | None:
        """The proxy for a call to `url`; None for a direct call."""
        parts = urlsplit(url)
        key = f"{parts.scheme}://{parts.netloc}"
        if key not in self._proxies_by_host:
            self._proxies_by_host[key] = self._proxies.proxy_for(url)
        return self._proxies_by_host[key]


def _name_failures(proxies: Proxies) -> aiohttp.ClientMiddlewareType:
    """A middleware that raises ProxyFailed for a proxy's failure, and ReplyLost for a connection that breaks.

    aiohttp would send a GET, PUT or DELETE again when a connection breaks. A second PUT of a secret would make a second version
    with the same value.
    """

    async def send(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        proxy = None if request.proxy is None else proxies.by_url(str(request.proxy))
        target = f"{request.url.host}:{request.url.port}"
        try:
            return await handler(request)
        except aiohttp.ClientConnectorError as error:
            if proxy and request.proxy and (error.host, error.port) == (request.proxy.host, request.proxy.port):
                raise ProxyFailed(proxy, None, target) from error
            raise
        except aiohttp.ConnectionTimeoutError:
            raise
        except aiohttp.ClientResponseError as error:
            # Raised by CONNECT only: aiohttp raises no error for the status of a reply.
            if proxy is not None:
                raise ProxyFailed(proxy, error.status, target) from error
            raise
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            raise ReplyLost(str(error) or type(error).__name__) from error

    return send


async def open_transport(
    stack: AsyncExitStack, *, ca_bundle: Path | None, connect_seconds: float, redactor: Redactor
) -> SharedTransport:
    """Opens the shared session on `stack`. Raises UsageError if the certificates or proxies are unusable.

    `redactor` masks the passwords of the proxies as long as the transport exists.

    The session keeps no cookies and does not decompress bodies: `load_body` does that. The number of connections is not limited
    here. The callers limit their calls, so that a hanging host does not delay calls to others.
    """
    shrink_tls_buffers()
    proxies = Proxies(redactor)
    sockets = Sockets()
    stack.push_async_callback(sockets.close)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            ssl=tls_context(ca_bundle), limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS, socket_factory=sockets
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        middlewares=(_name_failures(proxies),),
    )
    await stack.enter_async_context(session)
    return SharedTransport(session, proxies, connect_seconds=connect_seconds)
