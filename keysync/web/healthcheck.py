"""Checks the `/healthz` of a local daemon. Uses only the standard library, because containers run it twice a minute."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Final

from keysync.json_values import as_mapping
from keysync.report.console import strip_control_codes

_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # nosec B104  # compared with, not listened on
_MAX_BYTES: Final = 65_536
_MAX_REASON: Final = 500


def unhealthy_reason(host: str, port: int, *, seconds: float = 5.0) -> str | None:
    """Why the daemon on `host` and `port` is unhealthy, by its `/healthz`; None if it is healthy.

    A failed connection and no answer within `seconds` are reasons too: it raises nothing. It uses no proxy.
    """
    reasons: list[str | None] = []
    # A socket's timeout applies to each read: a server that sends single bytes would never exceed it.
    request = threading.Thread(target=lambda: reasons.append(_request(host, port, seconds)), daemon=True)
    request.start()
    request.join(seconds)
    return reasons[0] if reasons else f"no answer within {seconds:g} s"


def _request(host: str, port: int, seconds: float) -> str | None:
    # http.client and not urllib, which uses HTTP_PROXY.
    with closing(HTTPConnection(_ANY_ADDRESS.get(host, host), port, timeout=seconds)) as connection:
        try:
            connection.request("GET", "/healthz")
            response = connection.getresponse()
            status, body = response.status, response.read(_MAX_BYTES)
        except TimeoutError:
            return f"no answer within {seconds:g} s"
        except (OSError, HTTPException, ValueError) as error:
            return f"no answer: {getattr(error, 'strerror', None) or type(error).__name__}"
    try:
        health = as_mapping(json.loads(body)) or {}
    except ValueError:
        health = {}
    live = health.get("live")
    if not isinstance(live, bool):
        return f"another program than keysync answers there (status {status})"
    if live and status == 200:
        return None
    # The reason may come from another program, so it is not trusted.
    return strip_control_codes(str(health.get("reason") or f"status {status}"))[:_MAX_REASON]
