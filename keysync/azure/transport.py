"""One aiohttp session for every client and credential, with one TLS context and the proxy found once a host."""

from __future__ import annotations

import os
import re
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from azure.core.pipeline.transport import AioHttpTransport

from keysync.azure.sockets import Sockets
from keysync.errors import UsageError
from keysync.startup import spare_read_buffers

_LINK_LOCAL: Final = "169.254."
# Longer than anything in a pass waits between two calls to one host; what a pass over hundreds of vaults has opened is soon given back.
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
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise UsageError(f"{told} ({error})" + (f"; {cure}" if cure else "")) from error


def _proxies() -> dict[str, str]:
    """The environment's proxies by the scheme of the calls that they are for. Raises UsageError for one that is no URL."""
    found = getproxies()
    # What stands under `all` serves the calls over TLS where nothing else does.
    for scheme in ("https" if "https" in found else "all", "http"):
        if scheme in found and not _is_proxy(found[scheme]):
            raise UsageError(
                f"{_variable(scheme, found[scheme])}={_shown(found[scheme])}: this is not the address of a proxy; "
                "set it to a URL such as http://proxy.example.com:3128, or unset it"
            )
    return found


def _is_proxy(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # a property that raises
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def _variable(scheme: str, url: str) -> str:
    name = f"{scheme}_proxy"
    return name if os.environ.get(name) == url else name.upper()


def _shown(url: str) -> str:
    """A proxy's address without what could be a password: user and password, and all that is no host and port."""
    scheme, separator, rest = url.partition("://") if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url) else ("", "", url)
    _user, at, host = rest.rpartition("@")
    plain = re.fullmatch(r"[\w.-]*(:[0-9]{0,5})?/?", host)
    return f"{scheme}{separator}{'***@' if at else ''}{host if plain else '***'}"


class SharedTransport(AioHttpTransport):  # type: ignore[misc]  # the SDK hands it out through a module's __getattr__
    """The SDKs' transport over a session that others share; closing a client leaves it open.

    The SDK would look up the environment's proxy and netrc for each request, which costs two thread hops; here each
    host is looked up once. Link-local addresses (the metadata service of a VM) are never sent through a proxy.
    """

    def __init__(self, session: aiohttp.ClientSession, *, connect_seconds: float) -> None:
        """Raises UsageError where the environment's proxy is no URL."""
        super().__init__(
            session=session, session_owner=False, use_env_settings=False, connection_timeout=connect_seconds
        )
        self._proxies = _proxies()
        self._by_host: dict[str, str | None] = {}

    async def send(self, request: Any, **config: Any) -> Any:  # noqa: ANN401  # the base class's own types
        """Sends one request, through the proxy that its host calls for."""
        config.pop("proxies", None)
        return await super().send(request, proxy=self.proxy_for(request.url), **config)

    def proxy_for(self, url: str) -> str | None:
        """The proxy's URL for `url` by HTTPS_PROXY, HTTP_PROXY and NO_PROXY, None for a direct connection."""
        parts = urlsplit(url)
        key = f"{parts.scheme}://{parts.netloc}"
        if key not in self._by_host:
            self._by_host[key] = self._look_up(parts.scheme, parts.hostname or "", parts.netloc)
        return self._by_host[key]

    def _look_up(self, scheme: str, host: str, authority: str) -> str | None:
        if host.startswith(_LINK_LOCAL) or proxy_bypass(authority):
            return None
        return self._proxies.get(scheme) or self._proxies.get("all")


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


async def open_transport(stack: AsyncExitStack, *, ca_bundle: Path | None, connect_seconds: float) -> SharedTransport:
    """Opens the shared session on `stack`, which closes it. Raises UsageError where certificates or proxy cannot be used.

    The cookie jar keeps nothing, and bodies stay compressed since the SDK decompresses them itself. Connections have no
    limit here: how many calls are under way is bounded where they are made, so that a hung host takes nobody's place.
    """
    spare_read_buffers()
    sockets = Sockets()
    stack.push_async_callback(sockets.close)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            ssl=tls_context(ca_bundle), limit=0, keepalive_timeout=_KEPT_SECONDS, socket_factory=sockets
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        middlewares=(_no_silent_repeat,),
    )
    await stack.enter_async_context(session)
    return SharedTransport(session, connect_seconds=connect_seconds)
