"""What was asked of the embedded Azure."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

_KEEP = 200_000


class Served(NamedTuple):
    """One request: its operation, what it was about, and the status it got (0 where the reply was cut off)."""

    operation: str
    target: str
    status: int


class RequestLog:
    """Requests by operation, and one by one."""

    def __init__(self) -> None:
        self.by_operation: Counter[str] = Counter()
        self.by_status: Counter[str] = Counter()
        self.requests: list[Served] = []

    def record(self, operation: str, target: str, status: int) -> None:
        """Note a request that was answered, or cut off on purpose."""
        self.by_operation[operation] += 1
        self.by_status[str(status)] += 1
        self.requests.append(Served(operation, target, status))
        if len(self.requests) > _KEEP:  # a server that is left running must not grow without bound
            del self.requests[: _KEEP // 2]

    def clear(self) -> None:
        """Begin again at nought."""
        self.by_operation.clear()
        self.by_status.clear()
        self.requests.clear()
