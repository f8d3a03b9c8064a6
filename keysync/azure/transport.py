"""One aiohttp session for every client and credential, with one TLS context and the proxy found once a host."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from azure.core.pipeline.transport import AioHttpTransport

from keysync.azure.body import load_body
from keysync.http.proxy import Proxies, Proxy, ProxyFailed
from keysync.http.reply import ReplyLost
from keysync.http.sockets import Sockets
from keysync.http.tls import tls_context
from keysync.secret.redact import Redactor
from keysync.startup import shrink_tls_buffers

# Longer than anything in a run waits between two calls to one host; what a run over hundreds of vaults has opened is soon given back.
_KEPT_SECONDS: Final = 5.0


class SharedTransport(AioHttpTransport):  # type: ignore[misc]  # the SDK hands it out through a module's __getattr__
    """The SDKs' transport over a session that others share; closing a client leaves it open.

    The SDK would look up the environment's proxy and netrc for each request, which costs two thread hops; here each
    host is looked up once.
    """

    def __init__(self, session: aiohttp.ClientSession, proxies: Proxies, *, connect_seconds: float) -> None:
        super().__init__(
            session=session, session_owner=False, use_env_settings=False, connection_timeout=connect_seconds
        )
        self._proxies = proxies
        self._by_host: dict[str, Proxy | None] = {}

    async def send(self, request: Any, **config: Any) -> Any:  # noqa: ANN401  # the base class's own types
        """Sends one request through the proxy of its host and loads the reply within the limits of `body`.

        Raises UnreadableBody for a reply of success whose body breaks a limit.
        """
        config.pop("proxies", None)
        proxy = self.proxy_for(request.url)
        if proxy is not None:
            config |= {"proxy": proxy.url, "proxy_headers": proxy.headers}
        response = await super().send(request, **{**config, "stream": True})
        await load_body(response)
        return response

    def proxy_for(self, url: str) -> Proxy | None:
        """The proxy for a call to `url`, None for a direct connection."""
        parts = urlsplit(url)
        key = f"{parts.scheme}://{parts.netloc}"
        if key not in self._by_host:
            self._by_host[key] = self._proxies.proxy_for(url)
        return self._by_host[key]


async def _no_silent_repeat(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keeps aiohttp from sending a PUT, GET or DELETE again by itself when a connection breaks.

    It counts PUT among the methods that may be repeated, which for a secret makes a second version of the same value.
    """
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise ReplyLost(str(error) or type(error).__name__) from error


def _naming_proxies(proxies: Proxies) -> aiohttp.ClientMiddlewareType:
    """A middleware that raises ProxyFailed for what a proxy did, in place of an error that could be the service's."""

    async def send(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        proxy = None if request.proxy is None else proxies.by_url(str(request.proxy))
        if proxy is None or request.proxy is None:
            return await handler(request)
        target = f"{request.url.host}:{request.url.port}"
        try:
            return await handler(request)
        except aiohttp.ClientConnectorError as error:
            if (error.host, error.port) != (request.proxy.host, request.proxy.port):
                raise
            raise ProxyFailed(proxy, None, target) from error
        except aiohttp.ClientResponseError as error:
            # Raised while the tunnel is made: aiohttp raises nothing for the status of a reply.
            raise ProxyFailed(proxy, error.status, target) from error

    return send


async def open_transport(
    stack: AsyncExitStack, *, ca_bundle: Path | None, connect_seconds: float, redactor: Redactor
) -> SharedTransport:
    """Opens the shared session on `stack`, which closes it. Raises UsageError where certificates or proxy cannot be used.

    `redactor` masks the passwords of the environment's proxies for as long as the transport lives.

    The cookie jar keeps nothing, and bodies stay compressed since the SDK decompresses them itself. Connections have no
    limit here: how many calls are under way is bounded where they are made, so that a hung host takes nobody's place.
    """
    shrink_tls_buffers()
    proxies = Proxies(redactor)
    sockets = Sockets()
    stack.push_async_callback(sockets.close)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            ssl=tls_context(ca_bundle), limit=0, keepalive_timeout=_KEPT_SECONDS, socket_factory=sockets
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        middlewares=(_no_silent_repeat, _naming_proxies(proxies)),
    )
    await stack.enter_async_context(session)
    return SharedTransport(session, proxies, connect_seconds=connect_seconds)
