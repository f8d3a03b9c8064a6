"""Notifies a webhook of changes between runs. It never delays a run and never makes one fail."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Protocol, Self, cast

import structlog

from keysync.report.events import Event, ItemState, describe, stop_transitions, transitions
from keysync.report.webhook import Delivery, Webhook
from keysync.sync.model import BAD, ItemRef, Report, Result

_BATCH: Final = 100


class NotifyObserver(Protocol):
    """Receives the number of events that were sent, that failed (with the reason), or that were dropped unsent."""

    def sent(self, events: int) -> None: ...
    def failed(self, events: int, reason: str) -> None: ...
    def dropped(self, events: int) -> None: ...


class EventQueue:
    """A queue of up to `capacity` events, read in order and in batches."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: deque[dict[str, Any]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, events: Iterable[dict[str, Any]]) -> int:
        """Adds `events`. If the queue is full, drops the oldest; returns the number dropped."""
        self._waiting.extend(events)
        excess = max(0, len(self._waiting) - self._capacity)
        for _ in range(excess):
            self._waiting.popleft()
        return excess

    def take(self) -> list[dict[str, Any]]:
        """Removes and returns the oldest events, up to the size of one request."""
        return [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]


class Notifier:
    """A `RunObserver` that queues the events of each run, and a context manager whose task sends them.

    `events` are the configured event names; ``stopped`` includes ``released``. Beyond `capacity` queued events, the oldest are
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
        observer: NotifyObserver | None = None,
        capacity: int = 1000,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        logger: Any = None,  # noqa: ANN401  # structlog's proxy has no type of its own
    ) -> None:
        self._webhook = webhook
        self._event_names = frozenset(events) | frozenset({"released"} if "stopped" in events else ())
        self._installation = installation
        self._redact = redact
        self._drain_seconds = drain_seconds
        self._observer = observer
        self._queue = EventQueue(capacity)
        self._clock = clock
        self._log = logger or structlog.get_logger("keysync")
        self._states: Mapping[ItemRef, ItemState] = {}
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

    def started(self, run_id: str, work_items: int) -> None:
        """No-op: events are queued when a run ends."""

    def collected(self, run_id: str, account: str) -> None:
        """No-op: events are queued when a run ends."""

    def result(self, run_id: str, result: Result) -> None:
        """No-op: events are queued when a run ends."""

    def finished(self, report: Report) -> None:
        """Queues the events of a run. Returns at once and raises nothing."""
        if report.dry_run:
            return
        try:
            self._enqueue(report)
        except Exception as error:  # noqa: BLE001  # a bug here must not make the run fail
            self._log.warning(
                "notify.failed", run_id=report.run_id, events=0, reason=f"unexpected {type(error).__name__}"
            )

    def _enqueue(self, report: Report) -> None:
        now = self._clock()
        events = [event for event in self._events(report) if event.name in self._event_names]
        self._dropped(self._queue.put(self._described(event, report, now) for event in events), "queue_full")
        if self._queue:
            self._filled.set()

    def _described(self, event: Event, report: Report, now: datetime) -> dict[str, Any]:
        fields = describe(
            event,
            identity=str(uuid.uuid4()),
            moment=now,
            run_id=report.run_id,
            installation=self._installation,
        )
        # Redacted now, not when it is sent: the redactor forgets values that are no longer in use.
        return {key: _redacted(value, self._redact) for key, value in fields.items()}

    def _events(self, report: Report) -> Iterator[Event]:
        items, self._states = transitions(self._states, _conclusive(report))
        stops, self._blocked_checksum = stop_transitions(self._blocked_checksum, report)
        yield from items
        yield from stops

    async def _work(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._queue:
                await self._send(self._queue.take())
            if self._closing:
                return

    async def _send(self, batch: Sequence[dict[str, Any]]) -> None:
        self._sending = len(batch)
        try:
            # Escaped to ASCII: a service's text may contain half a surrogate pair, which UTF-8 cannot encode.
            delivery = await self._webhook.post(json.dumps({"events": batch}, separators=(",", ":")).encode("ascii"))
        except Exception as error:  # noqa: BLE001  # the task must survive unexpected errors
            delivery = Delivery(f"unexpected {type(error).__name__}", 1)
        self._sending = 0
        self._delivered(len(batch), delivery)

    def _delivered(self, events: int, delivery: Delivery) -> None:
        fields: dict[str, Any] = {"events": events, "attempts": delivery.attempts, "http_status": delivery.http_status}
        if delivery.reason is None:
            self._log.debug("notify.sent", **fields)
            if self._observer is not None:
                self._observer.sent(events)
            return
        self._log.warning("notify.failed", reason=delivery.reason, **fields)
        if self._observer is not None:
            self._observer.failed(events, delivery.reason)

    def _dropped(self, events: int, reason: str) -> None:
        if events <= 0:
            return
        self._log.warning("notify.dropped", events=events, reason=reason)
        if self._observer is not None:
            self._observer.dropped(events)


def _conclusive(report: Report) -> Iterator[Result]:
    """The results that say something about their items. An interrupted run fails all items that it did not reach."""
    return (result for result in report.results if not (report.interrupted and result.outcome in BAD))


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:  # noqa: ANN401  # JSON of any shape
    if isinstance(value, dict):
        return {key: _redacted(item, redact) for key, item in cast("dict[str, Any]", value).items()}
    return redact(value) if isinstance(value, str) else value
