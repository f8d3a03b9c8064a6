"""Asks a daemon on this machine whether it works, with the standard library alone: containers ask twice a minute."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Final

from keysync.report.console import strip_control_codes

_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # nosec B104  # asked at, not listened on
_MOST_BYTES: Final = 65_536
_LONGEST_REASON: Final = 500


def why_unwell(host: str, port: int, *, seconds: float = 5.0) -> str | None:
    """Why the daemon that listens on `host` and `port` is not well, by its `/healthz`; None if it is.

    Whatever keeps it from answering within `seconds` is a reason too: nothing is raised. No proxy is asked.
    """
    reasons: list[str | None] = []
    # A socket's timeout is one for each step, and whoever sends a byte now and then would never run into it.
    asking = threading.Thread(target=lambda: reasons.append(_asked(host, port, seconds)), daemon=True)
    asking.start()
    asking.join(seconds)
    return reasons[0] if reasons else f"no answer within {seconds:g} s"


def _asked(host: str, port: int, seconds: float) -> str | None:
    # http.client rather than urllib, which would go by HTTP_PROXY.
    with closing(HTTPConnection(_EVERYWHERE.get(host, host), port, timeout=seconds)) as connection:
        try:
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            status, body = answer.status, answer.read(_MOST_BYTES)
        except TimeoutError:
            return f"no answer within {seconds:g} s"
        except (OSError, HTTPException, ValueError) as error:
            return f"no answer: {getattr(error, 'strerror', None) or type(error).__name__}"
    return _judged(status, body)


def _judged(status: int, body: bytes) -> str | None:
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if not isinstance(told, dict) or not isinstance(told.get("live"), bool):
        return f"what answers there is no keysync (status {status})"
    if told["live"] and status == 200:
        return None
    # It may be somebody else's answer.
    return strip_control_codes(str(told.get("reason") or f"status {status}"))[:_LONGEST_REASON]
