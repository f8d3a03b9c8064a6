"""Notifies a webhook of changes between runs. It never delays a run and never makes one fail."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import deque
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias, cast

import structlog

from keysync.report.events import stop_transitions, transitions
from keysync.report.webhook import Delivery, Webhook
from keysync.sync.model import BAD, ItemRef, Report
from keysync.sync.observers import RunObserver

_BATCH: Final = 100
_CAPACITY: Final = 1000

Count: TypeAlias = Callable[[Literal["sent", "failed", "dropped"], int], None]
"""Counts events: accepted, not accepted, or never sent."""


class Notifier(RunObserver):
    """Queues the events of each run, and as a context manager sends them in a task.

    `events` are the configured event names; ``stopped`` includes ``released``. Beyond 1,000 queued events, the oldest are
    dropped. On exit, queued events are sent for up to `drain_seconds`.
    """

    def __init__(
        self,
        webhook: Webhook,
        *,
        events: Collection[str],
        installation: str | None,
        redact: Callable[[str], str],
        drain_seconds: float,
        count: Count,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._webhook = webhook
        self._event_names = frozenset(events) | frozenset({"released"} if "stopped" in events else ())
        self._installation = installation
        self._redact = redact
        self._drain_seconds = drain_seconds
        self._count = count
        self._clock = clock
        self._log: Any = structlog.get_logger("keysync")
        self._queue: deque[dict[str, Any]] = deque(maxlen=_CAPACITY)
        self._failed: set[ItemRef] = set()
        self._blocked_checksum: str | None = None
        self._sending = 0
        self._closing = False
        self._filled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._work(), name="notify")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._filled.set()
        if self._task is not None:
            try:
                await asyncio.wait({self._task}, timeout=self._drain_seconds)
            finally:
                self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._dropped(self._sending + len(self._queue), "shutdown")

    def finished(self, report: Report) -> None:
        """Queues the events of a run. Returns at once and raises nothing."""
        if report.dry_run:
            return
        try:
            events = self._events(report)
        except Exception as error:  # noqa: BLE001  # a bug here must not make the run fail
            reason = f"unexpected {type(error).__name__}"
            self._log.warning("notify.failed", run_id=report.run_id, events=0, reason=reason)
            return
        self._dropped(len(self._queue) + len(events) - _CAPACITY, "queue_full")
        self._queue.extend(events)
        if self._queue:
            self._filled.set()

    def _events(self, report: Report) -> list[dict[str, Any]]:
        # An interrupted run fails all items that it did not reach, which says nothing about them.
        conclusive = (each for each in report.results if not (report.interrupted and each.outcome in BAD))
        items, self._failed = transitions(self._failed, conclusive)
        stops, self._blocked_checksum = stop_transitions(self._blocked_checksum, report)
        time = self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        run = {"installation": self._installation, "run_id": report.run_id}
        # Redacted now, not when it is sent: the redactor forgets values that are no longer in use.
        return [
            _redacted({"id": str(uuid.uuid4()), "time": time, "event": event.name, **run, **event.fields}, self._redact)
            for event in (*items, *stops)
            if event.name in self._event_names
        ]

    async def _work(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._queue:
                await self._send([self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))])
            if self._closing:
                return

    async def _send(self, batch: list[dict[str, Any]]) -> None:
        self._sending = len(batch)
        try:
            # Escaped to ASCII: a service's text may contain half a surrogate pair, which UTF-8 cannot encode.
            delivery = await self._webhook.post(json.dumps({"events": batch}, separators=(",", ":")).encode("ascii"))
        except Exception as error:  # noqa: BLE001  # the task must survive unexpected errors
            delivery = Delivery(f"unexpected {type(error).__name__}")
        self._sending = 0
        fields = {"events": len(batch), "attempts": delivery.attempts, "http_status": delivery.http_status}
        if delivery.reason is None:
            self._log.debug("notify.sent", **fields)
            self._count("sent", len(batch))
        else:
            self._log.warning("notify.failed", reason=delivery.reason, **fields)
            self._count("failed", len(batch))

    def _dropped(self, events: int, reason: str) -> None:
        if events > 0:
            self._log.warning("notify.dropped", events=events, reason=reason)
            self._count("dropped", events)


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:  # noqa: ANN401  # JSON of any shape
    if isinstance(value, dict):
        return {key: _redacted(item, redact) for key, item in cast("dict[str, Any]", value).items()}
    return redact(value) if isinstance(value, str) else value
