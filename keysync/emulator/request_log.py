"""The log of the requests that the emulator received."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

_KEEP = 200_000


class Served(NamedTuple):
    """One request: its operation, its target and the status of its reply (0 if the connection was dropped)."""

    operation: str
    target: str
    status: int


class RequestLog:
    """The requests, and counts of them by operation and by status."""

    def __init__(self) -> None:
        self.by_operation: Counter[str] = Counter()
        self.by_status: Counter[str] = Counter()
        self.requests: list[Served] = []

    def record(self, operation: str, target: str, status: int) -> None:
        """Add a request that was answered, or whose connection a fault dropped."""
        self.by_operation[operation] += 1
        self.by_status[str(status)] += 1
        self.requests.append(Served(operation, target, status))
        if len(self.requests) > _KEEP:  # the log of a long-running server must not grow without bound
            del self.requests[: _KEEP // 2]

    def clear(self) -> None:
        """Remove every request and reset the counts to 0."""
        self.by_operation.clear()
        self.by_status.clear()
        self.requests.clear()
