"""Refuses requests to the control address that a web page could make a browser send."""

from __future__ import annotations

import ipaddress
import re

from keysync.emulator.wire import Call, Reply, error

_PORT = re.compile(r":[0-9]*$")
_JSON = "application/json"


def refusal(call: Call) -> Reply | None:
    """The reply to a request with another Host, an Origin of another site, or a body that is not JSON; None for others.

    DNS rebinding sends the name of its site as Host. A browser adds the page's Origin to every request that can change
    something. A form and a "simple" request of a script (https://fetch.spec.whatwg.org/#cors-safelisted-request-header)
    cannot send JSON as content type.
    """
    host = call.headers.get("Host", "")
    if host and not _is_loopback(host):
        message = "This address serves its own machine only: use 127.0.0.1 or localhost as host."
        return error(403, "HostNotAllowed", message)
    origin = call.headers.get("Origin")
    if origin is not None and origin.lower() != f"http://{host}".lower():
        return error(403, "OriginNotAllowed", "Requests of web pages are refused: send no Origin header.")
    content_type = call.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if call.body and content_type != _JSON:
        return error(415, "UnsupportedMediaType", f"Send the body with the header Content-Type: {_JSON}.")
    return None


def _is_loopback(host: str) -> bool:
    name = _PORT.sub("", host.strip()).lower().rstrip(".")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
