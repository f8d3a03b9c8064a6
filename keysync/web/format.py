"""Numbers and times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def count(number: int, noun: str) -> str:
    """``1 secret``, ``1,250 secrets``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def span(length: timedelta) -> str:
    """A length of time in one unit, rounded down: ``42 s``, ``3 min``, ``5 h``, ``2 d``."""
    seconds = int(abs(length).total_seconds())
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 120 * 60:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h"
    return f"{seconds // 86_400:,} d"


def relative(when: datetime, now: datetime) -> str:
    """``now``, ``3 min ago``, ``in 42 s``."""
    distance = when - now
    if abs(distance) < timedelta(seconds=1):
        return "now"
    return f"in {span(distance)}" if distance > timedelta(0) else f"{span(distance)} ago"


def clock(when: datetime, now: datetime) -> str:
    """The time in UTC, with the date where that is not today's."""
    when, now = when.astimezone(UTC), now.astimezone(UTC)
    return when.strftime("%H:%M:%S" if when.date() == now.date() else "%Y-%m-%d %H:%M:%S")


def machine(when: datetime) -> str:
    """The time for the attribute `datetime`."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
