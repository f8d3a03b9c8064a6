"""The queues at the control address: their messages, and what goes wrong with events on the way to them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from keysync.emulator.control_bodies import parse
from keysync.emulator.queue_data import DeliveryFaults
from keysync.emulator.state import State
from keysync.emulator.wire import Call, Reply

_XML_TEXT = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x{fffe}\x{ffff}]*$"
"""Text that a reply in XML can hold."""


class _Message(BaseModel):
    """The body of a new message."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=65_536, pattern=_XML_TEXT)


class QueueControl:
    """The endpoints. A queue is named by the second segment of the path. Each raises KeyError for an unknown one."""

    def __init__(self, state: State) -> None:
        self._queues = state.queues
        self._events = state.events
        self._clock = state.clock

    def show(self, call: Call) -> Reply:
        """Counts of the messages, and the faults that are left."""
        queue, now = self._queues.named(call.segments[1]), self._clock()
        subscription = self._events.subscriptions.get((queue.account, queue.name))
        body: dict[str, object] = {
            "account": queue.account,
            "name": queue.name,
            "messages": len(queue.existing(now)),
            "visible": len(queue.peek(len(queue.messages), now)),
            "delivery": subscription.faults.model_dump() if subscription is not None else None,
        }
        return Reply(200, body)

    def put(self, call: Call) -> Reply:
        """Put a message with any text."""
        self._queues.named(call.segments[1]).put(parse(call, _Message, "message").text, self._clock())
        return Reply(204)

    def clear(self, call: Call) -> Reply:
        """Remove every message."""
        self._queues.named(call.segments[1]).messages.clear()
        return Reply(204)

    def set_delivery(self, call: Call) -> Reply:
        """Replace the faults of the delivery. Events that wait for others stay."""
        subscription = self._events.subscription(call.segments[1])
        subscription.faults = parse(call, DeliveryFaults, "delivery")
        return Reply(204)
