"""Pushes the metrics of a one-off run to a Pushgateway, since the process ends before a scrape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.error import HTTPError
from urllib.parse import urlsplit

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import push_to_gateway  # pyright: ignore[reportUnknownVariableType]  # an unused parameter has no type

from keysync.errors import UsageError
from keysync.report.threads import in_thread

_JOB: Final = "keysync"
_EXPECTED: Final = "--push-gateway: expected an http or https URL without a query, such as http://pushgateway:9091"


def check_gateway(url: str) -> str:
    """Returns `url` if metrics can be pushed to it. Raises UsageError without the URL, which may contain a password."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # a property that raises
    except ValueError:
        raise UsageError(_EXPECTED) from None
    if "@" in parts.netloc:
        raise UsageError(
            "--push-gateway: a user or password in the URL is refused: other users could see it in the list of processes"
        )
    printable = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or not printable:
        raise UsageError(_EXPECTED)
    return url


async def push(
    registry: CollectorRegistry,
    url: str,
    grouping: Mapping[str, str],
    *,
    seconds: float = 10.0,
) -> None:
    """Replaces the metrics of this job and `grouping` in the gateway at `url`. A failure is logged, never raised."""
    log, gateway = structlog.get_logger("keysync"), urlsplit(url).netloc
    try:
        await in_thread(
            lambda: push_to_gateway(url, _JOB, registry, grouping_key=dict(grouping), timeout=seconds),
            seconds=seconds,
            name="push metrics",
        )
    except Exception as error:  # noqa: BLE001  # a failed push does not change the result of the run
        log.warning("metrics.push_failed", gateway=gateway, reason=_reason(error, seconds))
    else:
        log.debug("metrics.pushed", gateway=gateway)


def grouping_of(owner: str | None, shard: str | None) -> dict[str, str]:
    """The labels beside the job. A push replaces its whole group, so each installation and shard has its own group."""
    return {name: value for name, value in (("owner", owner), ("shard", shard)) if value is not None}


def _reason(error: Exception, seconds: float) -> str:
    # A timeout comes from the event loop, from the socket, or from the socket inside a URLError.
    cause = getattr(error, "reason", None)
    if isinstance(error, HTTPError):
        error.close()  # it is also the reply; nothing else closes its connection
        return f"HTTP {error.code}"
    if isinstance(error, TimeoutError) or isinstance(cause, TimeoutError):
        return f"no answer within {seconds:g} s"
    text = getattr(cause, "strerror", None) or getattr(error, "strerror", None) or ""
    return text or f"{type(error).__name__}"
