"""Times in the headers of replies: dates, and how long a reply asks to wait in each form that Azure uses."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """The wait that a reply asks for, in seconds: `x-ms-retry-after-ms`, `retry-after-ms`, or Retry-After as number or date."""
    for name in ("x-ms-retry-after-ms", "retry-after-ms"):
        milliseconds = _number(headers.get(name))
        if milliseconds is not None:
            return milliseconds / 1000
    value = headers.get("Retry-After", "")
    when = http_date(value)
    if when is None:
        return _number(value)
    # From the reply's own Date: this machine's clock may be wrong.
    return max(0.0, (when - (http_date(headers.get("Date", "")) or datetime.now(UTC))).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text else None
    except ValueError:
        return None
    return number if number is not None and 0 <= number < float("inf") else None


@lru_cache(maxsize=16)  # all replies of a second have the same
def http_date(text: str) -> datetime | None:
    """The time in a Date header, in UTC; None if it is no date. Without a zone it is UTC (RFC 9110, 5.6.7)."""
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
