"""Numbers and times as text for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def count(number: int, noun: str) -> str:
    """``1 secret``, ``1,250 secrets``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(length: timedelta) -> str:
    """A duration in one unit, rounded down: ``42 s``, ``3 min``, ``5 h``, ``2 d``."""
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
    return f"in {duration(distance)}" if distance > timedelta(0) else f"{duration(distance)} ago"


def clock(when: datetime, now: datetime) -> str:
    """The time in UTC, with the date unless it is today."""
    when, now = when.astimezone(UTC), now.astimezone(UTC)
    return when.strftime("%H:%M:%S" if when.date() == now.date() else "%Y-%m-%d %H:%M:%S")


def machine(when: datetime) -> str:
    """The time in UTC for the attribute `datetime` of the element `time`."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
