"""Replies: how long they ask to wait, and the error of one that was cut off."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp


class ReplyLost(aiohttp.ClientError):
    """The connection broke after it stood: the request may have taken effect."""


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a reply asks to wait: `x-ms-retry-after-ms`, `retry-after-ms`, or Retry-After as a number or date."""
    for name in ("x-ms-retry-after-ms", "retry-after-ms"):
        milliseconds = _number(headers.get(name))
        if milliseconds is not None:
            return milliseconds / 1000
    value = headers.get("Retry-After")
    seconds = _number(value)
    return seconds if seconds is not None or not value else _seconds_until(value, headers.get("Date"))


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text else None
    except ValueError:
        return None
    return number if number is not None and 0 <= number < float("inf") else None


def _seconds_until(http_date: str, sent: str | None) -> float | None:
    """From one date of the service to another: this machine's clock may be off. Without `sent` it has to do."""
    when, now = _http_date(http_date), _http_date(sent or "") or datetime.now(UTC)
    return None if when is None else max(0.0, (when - now).total_seconds())


def _http_date(text: str) -> datetime | None:
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
