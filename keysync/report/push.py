"""Metrics of a one-off run, pushed to a Pushgateway: no scraper would find them once the process has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlsplit

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import push_to_gateway

from keysync.errors import UsageError
from keysync.report.threads import in_thread

_JOB: Final = "keysync"


def check_gateway(url: str) -> str:
    """`url` if metrics can be pushed there. Raises UsageError, which does not repeat a URL that may hold a password."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # a property that raises
    except ValueError:
        raise UsageError("--push-gateway: expected a URL such as http://pushgateway:9091") from None
    if "@" in parts.netloc:
        raise UsageError(
            "--push-gateway: a user or a password in the URL is refused: it would show in the list of processes"
        )
    printable = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or not printable:
        raise UsageError(
            "--push-gateway: expected an http or https URL without a query, such as http://pushgateway:9091"
        )
    return url


async def push(
    registry: CollectorRegistry,
    url: str,
    grouping: Mapping[str, str],
    *,
    seconds: float = 10.0,
    logger: Any = None,  # noqa: ANN401  # structlog's proxy has no type of its own
) -> None:
    """Replaces what the gateway at `url` has of this job and `grouping`. A failure is logged, never raised."""
    log = logger or structlog.get_logger("keysync")
    try:
        await in_thread(
            lambda: push_to_gateway(url, _JOB, registry, grouping_key=dict(grouping), timeout=seconds),
            seconds=seconds,
            name="push metrics",
        )
    except Exception as error:  # noqa: BLE001  # what became of the metrics changes nothing about what was done
        log.warning("metrics.push_failed", gateway=urlsplit(url).netloc, reason=_reason(error, seconds))
    else:
        log.debug("metrics.pushed", gateway=urlsplit(url).netloc)


def grouping_of(owner: str | None, shard: str | None) -> dict[str, str]:
    """The labels beside the job. A push replaces its whole group, so each installation and each share has its own."""
    return {name: value for name, value in (("owner", owner), ("shard", shard)) if value is not None}


def _reason(error: Exception, seconds: float) -> str:
    # The deadline comes out of the loop, of the socket, or of the socket by way of an URLError.
    cause = getattr(error, "reason", None)
    if isinstance(error, HTTPError):
        error.close()  # it is the reply too, whose connection nobody else ends
        return f"HTTP {error.code}"
    if isinstance(error, TimeoutError) or isinstance(cause, TimeoutError):
        return f"no answer within {seconds:g} s"
    text = getattr(cause, "strerror", None) or getattr(error, "strerror", None) or ""
    return text or f"{type(error).__name__}"
