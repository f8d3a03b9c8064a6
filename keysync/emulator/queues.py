"""Storage queues and their messages. Knows nothing of HTTP; times are in seconds since 1970."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass, field

from keysync.emulator.queue_data import QueueData

NEVER = 253_402_300_799.0
"""The expiry of a message without one: the end of the year 9999."""

DEFAULT_TTL = 7 * 86_400.0
"""Seconds until a message expires."""


class NoSuchMessage(KeyError):
    """The queue has no message of this id, or it has expired."""


class WrongReceipt(ValueError):
    """The message was received again since, so another pop receipt is valid."""


def new_receipt() -> str:
    """A new pop receipt."""
    return secrets.token_urlsafe(12)


@dataclass
class Message:
    """One message. It is visible from `visible` until it expires, and received with a new pop receipt each time."""

    text: str
    inserted: float
    expires: float
    visible: float
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    receipt: str = field(default_factory=new_receipt)
    dequeue_count: int = 0


@dataclass
class Queue:
    """One queue of a storage account."""

    account: str
    name: str
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    messages: list[Message] = field(default_factory=list[Message])

    def put(self, text: str, now: float, *, delay: float = 0.0, ttl: float = DEFAULT_TTL) -> Message:
        """Add a message that becomes visible after `delay` seconds. `ttl` is in seconds, infinite for none."""
        message = Message(text, inserted=now, expires=min(now + ttl, NEVER), visible=now + delay)
        self.messages.append(message)
        return message

    def receive(self, count: int, now: float, timeout: float) -> list[Message]:
        """The first visible messages. Each is invisible for `timeout` seconds from now."""
        received = self.peek(count, now)
        for message in received:
            message.dequeue_count += 1
            message.visible = now + timeout
            message.receipt = new_receipt()
        return received

    def peek(self, count: int, now: float) -> list[Message]:
        """The first visible messages. They stay visible."""
        return [message for message in self.existing(now) if message.visible <= now][:count]

    def update(self, message_id: str, receipt: str, now: float, *, timeout: float, text: str | None) -> Message:
        """Hide a received message for `timeout` seconds from now, with a new text if it is not None.

        Raises NoSuchMessage and WrongReceipt.
        """
        message = self._received(message_id, receipt, now)
        message.visible = now + timeout
        message.receipt = new_receipt()
        if text is not None:
            message.text = text
        return message

    def delete(self, message_id: str, receipt: str, now: float) -> None:
        """Remove a received message. Raises NoSuchMessage and WrongReceipt."""
        received = self._received(message_id, receipt, now)
        self.messages = [message for message in self.messages if message is not received]

    def existing(self, now: float) -> list[Message]:
        """The messages that have not expired, in the order in which they were added."""
        self.messages = [message for message in self.messages if message.expires > now]
        return self.messages

    def _received(self, message_id: str, receipt: str, now: float) -> Message:
        found = next((message for message in self.existing(now) if message.id == message_id), None)
        if found is None:
            raise NoSuchMessage(message_id)
        if found.receipt != receipt:
            raise WrongReceipt
        return found


class Queues:
    """The queues of all storage accounts in the data. The names of queues are lowercase."""

    def __init__(self, data: list[QueueData], now: float) -> None:
        self.accounts = {each.account: each.id.partition("/queueServices/")[0] for each in data}
        self.denied = {each.id: frozenset(each.denied) for each in data}
        self.service_properties: dict[str, bytes] = {}
        self._queues: dict[tuple[str, str], Queue] = {}
        for each in data:
            queue = self.create(each.account, each.name, dict(each.metadata))
            for text in each.messages:
                queue.put(text, now)

    def resource_id(self, account: str, name: str) -> str:
        """ARM id of a queue, that of the queue service for no name."""
        service = f"{self.accounts[account]}/queueServices/default"
        return f"{service}/queues/{name}" if name else service

    def create(self, account: str, name: str, metadata: dict[str, str]) -> Queue:
        """Add a queue in place of one of this name."""
        self._queues[account, name] = Queue(account, name, metadata)
        return self._queues[account, name]

    def find(self, account: str, name: str) -> Queue | None:
        """The queue of this name, None if there is none."""
        return self._queues.get((account, name))

    def named(self, name: str) -> Queue:
        """The first queue of this name in any account. Raises KeyError."""
        for queue in self.all():
            if queue.name == name:
                return queue
        raise KeyError(name)

    def remove(self, queue: Queue) -> None:
        """Delete a queue with its messages."""
        del self._queues[queue.account, queue.name]

    def all(self) -> list[Queue]:
        """Every queue, by account and name."""
        return [queue for _, queue in sorted(self._queues.items())]

    def restore(self, queues: list[Queue]) -> None:
        """Add saved queues, in place of queues of their names. Accounts that the data no longer has are ignored."""
        self._queues |= {(queue.account, queue.name): queue for queue in queues if queue.account in self.accounts}
