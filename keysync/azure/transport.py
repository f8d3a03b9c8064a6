"""One aiohttp session for every client and credential, with one TLS context and the proxy found once a host."""

from __future__ import annotations

import os
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from azure.core.pipeline.transport import AioHttpTransport

from keysync.azure.body import load_body
from keysync.azure.proxy import Proxies, Proxy, ProxyFailed
from keysync.azure.sockets import Sockets
from keysync.errors import UsageError
from keysync.files import check_regular
from keysync.secret.redact import Redactor
from keysync.startup import shrink_tls_buffers

# Longer than anything in a run waits between two calls to one host; what a run over hundreds of vaults has opened is soon given back.
_KEPT_SECONDS: Final = 5.0


def tls_context(ca_bundle: Path | None) -> ssl.SSLContext:
    """The system's trust (or SSL_CERT_FILE's), and `ca_bundle` on top of it.

    Raises UsageError where one of the two files cannot be read: better at start than as a failure of every account.
    """
    context = ssl.create_default_context()
    named = os.environ.get("SSL_CERT_FILE")
    if named and not context.cert_store_stats()["x509"]:
        # OpenSSL has looked into it, and goes on without a word where there was nothing to be had: this says why.
        cure = "name a PEM file of the CAs to trust, or unset it"
        _trust(context, Path(named), f"SSL_CERT_FILE={named}: this is not a readable PEM file", cure)
    if ca_bundle is not None:
        _trust(context, ca_bundle, f"cloud.ca_bundle: {ca_bundle} is not a readable PEM file")
    return context


def _trust(context: ssl.SSLContext, path: Path, told: str, cure: str = "") -> None:
    try:
        check_regular(path)  # OpenSSL would block on a FIFO
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise UsageError(f"{told} ({error})" + (f"; {cure}" if cure else "")) from error


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


class ReplyLost(aiohttp.ClientError):
    """The connection broke after it stood: the request may have taken effect."""


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
        proxy = None if request.proxy is None else proxies.named(str(request.proxy))
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
