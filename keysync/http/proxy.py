"""The proxies of the environment: selects the one for a URL, and keeps user and password apart from its address."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

import aiohttp
import structlog

from keysync.errors import UsageError
from keysync.secret.redact import Redactor
from keysync.secret.value import SecretValue

_LINK_LOCAL: Final = ip_network("169.254.0.0/16")
# The endpoints from which azure-identity gets tokens of a managed identity. The last one is of AAD Pod Identity.
_IDENTITY_ENDPOINTS: Final = (
    "IDENTITY_ENDPOINT",
    "IMDS_ENDPOINT",
    "MSI_ENDPOINT",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
)
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy and the variable that names it. `headers`, for CONNECT, have the user and password; `url` does not."""

    url: str
    variable: str
    headers: Mapping[str, str] | None = field(default=None, repr=False)


class Proxies:
    """The proxies in `environ`: HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, in upper or lower case.

    Identity endpoints, loopback and link-local addresses, the cluster's API and the hosts in NO_PROXY are called directly.
    `redactor` masks the passwords as long as this object exists.
    """

    def __init__(self, redactor: Redactor, environ: Mapping[str, str] = os.environ) -> None:
        """Raises UsageError if a variable is not the URL of an HTTP proxy. The message does not quote the value."""
        self._redactor = redactor
        self._secrets: list[SecretValue] = []
        # The lower-case name wins, as in curl.
        https, http, both = (
            next((name for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY") if environ.get(name)), None)
            for scheme in ("https", "http", "all")
        )
        # ALL_PROXY is often for other programs, so it is checked only if HTTPS_PROXY is not set.
        names = {"https": https or both, "http": http or (None if https else both)}
        self._by_scheme = {scheme: self._proxy(name, environ[name]) for scheme, name in names.items() if name}
        self._direct_hosts = {"localhost", *_identity_and_cluster_hosts(environ)}
        self._by_host: dict[str, Proxy | None] = {}
        self._exclusions = list(_exclusions(environ.get("no_proxy") or environ.get("NO_PROXY") or ""))

    def proxy_for(self, url: str) -> Proxy | None:
        """The proxy for a call to `url`; None for a direct call."""
        parts = urlsplit(url)
        host = f"{parts.scheme}://{parts.netloc}"
        if host not in self._by_host:
            self._by_host[host] = self._choose(parts)
        return self._by_host[host]

    def _choose(self, parts: SplitResult) -> Proxy | None:
        proxy = self._by_scheme.get(parts.scheme)
        host, port = (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(parts.scheme)
        if proxy is None or host in self._direct_hosts or host.endswith(".localhost"):
            return None
        try:
            address = ip_address(host)
        except ValueError:
            address = None
        if address is not None and (address.is_loopback or address in _LINK_LOCAL):
            return None
        return None if any(entry.matches(host, address, port) for entry in self._exclusions) else proxy

    def _proxy(self, variable: str, value: str) -> Proxy:
        parts = _split(value)
        if parts is None:
            raise UsageError(
                f"{variable}: the value is not the address of an HTTP proxy; set it to a URL such as "
                "http://proxy.example.com:3128 (special characters of a user or a password are percent-encoded: # is %23), "
                "or unset it"
            )
        url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"
        if parts.username is None and parts.password is None:
            return Proxy(url, variable)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if ":" in user:
            raise UsageError(f"{variable}: the user of the proxy has a colon, which Basic authentication cannot send")
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._secrets += [
            self._redactor.remember(SecretValue(text)) for text in (password, parts.password or "", basic)
        ]
        return Proxy(url, variable, {"Proxy-Authorization": f"Basic {basic}"})


class ProxyFailed(aiohttp.ClientError):
    """A proxy could not be reached, or refused to connect. `status` is that of its reply; None without a reply.

    The message names the proxy without user and password; `hint` names the variable, and `reason` omits the called host.
    """

    def __init__(self, proxy: Proxy, status: int | None, target: str) -> None:
        self.status = status
        self.reason = f"the proxy {proxy.url} of {proxy.variable} "
        self.reason += "cannot be reached" if status is None else f"answered HTTP {status}"
        super().__init__(self.reason if status is None else f"{self.reason} to CONNECT {target}")
        name = proxy.variable
        if status is None:
            self.hint = f"start the proxy {proxy.url}, correct {name}, or unset it; NO_PROXY excludes hosts that are called directly"
        elif status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            problem = "has a user and password that the proxy refuses" if proxy.headers else "has no user and password"
            self.hint = (
                f"{name} {problem}: set it to http://USER:PASSWORD@HOST:PORT, special characters percent-encoded"
            )
        else:
            self.hint = (
                f"allow {target} in the proxy {proxy.url} ({name}), or name the host in NO_PROXY to call it directly"
            )


_IN_TEXT: Final = re.compile(r"the proxy (\S+) of (\w+) (cannot be reached|answered HTTP \d+)")


def hint_in(text: str) -> str | None:
    """The hint for the ProxyFailed message in `text`, or None. DefaultAzureCredential keeps only the text of that exception."""
    match = _IN_TEXT.search(text)
    if match is None:
        return None
    url, name, problem = match.groups()
    return f"{name} names the proxy {url}, which {problem}: correct {name}, or name the hosts in NO_PROXY to call them directly"


def _split(value: str) -> SplitResult | None:
    """The parts of a proxy's URL; None if it is not one, such as with an unencoded `#` or `/` in the password."""
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018  # a property that raises
    except ValueError:
        return None
    alone = parts.path in {"", "/"} and not any(mark in value for mark in "#?")
    plain = value.isprintable() and " " not in value
    return parts if alone and plain and parts.scheme in {"http", "https"} and parts.hostname else None


class _Exclusion(NamedTuple):
    """One entry of NO_PROXY: a host, suffix or network; with a port, it applies to that port only."""

    what: str | IPv4Network | IPv6Network
    port: int | None = None

    def matches(self, host: str, address: IPv4Address | IPv6Address | None, port: int | None) -> bool:
        """Whether it applies to this host, its address if the host is one, and the port."""
        if self.port not in {None, port}:
            return False
        if isinstance(self.what, str):
            return self.what in {"*", host} or host.endswith(f".{self.what}")
        return address is not None and address in self.what


def _exclusions(no_proxy: str) -> Iterator[_Exclusion]:
    """The entries of NO_PROXY, as curl reads it."""
    for word in filter(None, re.split(r"[\s,]+", no_proxy.lower())):
        try:
            yield _exclusion(word)
        except ValueError:
            log: Any = structlog.get_logger("keysync")
            log.warning(
                "proxy.exclusion_ignored", reason="an entry of NO_PROXY is not a host, suffix, address or network"
            )


def _exclusion(word: str) -> _Exclusion:
    """Parses one entry of NO_PROXY. Raises ValueError if it is invalid."""
    if word == "*":
        return _Exclusion(word)
    if "/" in word or (word.count(":") > 1 and not word.startswith("[")):
        return _Exclusion(ip_network(word, strict=False))
    parts = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|(\.?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?))(?::([0-9]{0,5}))?", word)
    if parts is None:
        raise ValueError
    bracketed, host, port = parts.groups()
    number = int(port) if port else None
    try:
        return _Exclusion(ip_network(bracketed or host), number)
    except ValueError:
        if bracketed:
            raise
    return _Exclusion(host.strip("."), number)


def _identity_and_cluster_hosts(environ: Mapping[str, str]) -> Iterator[str]:
    """Hosts of identity endpoints and of the cluster's API. A proxy could read the token, and usually cannot reach them."""
    for name in _IDENTITY_ENDPOINTS:
        value = environ.get(name, "")
        with suppress(ValueError):
            yield urlsplit(value if "://" in value else f"//{value}").hostname or "localhost"
    if cluster := environ.get("KUBERNETES_SERVICE_HOST"):
        yield from (cluster.strip("[]").lower(), "kubernetes.default.svc", "kubernetes.default")
