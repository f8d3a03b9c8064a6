"""Times as Azure's services write them."""

from __future__ import annotations

from datetime import UTC, datetime


def timestamp(now: float) -> str:
    """`now`, in seconds since 1970, as UTC with seven digits after the second."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")
