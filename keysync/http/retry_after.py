"""Retry-After: how long a reply asks to wait, in each form that Azure uses."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """The wait that a reply asks for, in seconds: `x-ms-retry-after-ms`, `retry-after-ms`, or Retry-After as number or date."""
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
    """Seconds from `sent`, the reply's Date, to `http_date`. Uses this machine's clock, which may be wrong, only without `sent`."""
    when, now = _http_date(http_date), _http_date(sent or "") or datetime.now(UTC)
    return None if when is None else max(0.0, (when - now).total_seconds())


def _http_date(text: str) -> datetime | None:
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
