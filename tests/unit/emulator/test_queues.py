"""Any order of operations on a queue: no message is lost, and only the last receipt of a message is valid."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from keysync.emulator.queues import Message, NoSuchMessage, Queue, WrongReceipt

TTL = 100.0


class QueueOperations(RuleBasedStateMachine):
    """A queue beside a list of what must be in it."""

    receipts = Bundle("receipts")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue = Queue("account", "queue")
        self.expected: dict[str, tuple[str, float, float]] = {}
        """Text, expiry and time of the next visibility by id, in the order of the insertions."""
        self.valid: dict[str, str] = {}

    @rule(text=st.text(max_size=5), delay=st.integers(0, 50))
    def put(self, text: str, delay: int) -> None:
        """A message with a time to live."""
        message = self.queue.put(text, self.now, delay=delay, ttl=TTL)
        self.expected[message.id] = (text, self.now + TTL, self.now + delay)

    @rule(seconds=st.integers(1, 60))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.now += seconds
        self.expected = {key: value for key, value in self.expected.items() if value[1] > self.now}

    @rule(target=receipts, count=st.integers(1, 3), timeout=st.integers(1, 50))
    def receive(self, count: int, timeout: int) -> tuple[str, str] | None:
        """The first visible messages, which are invisible then."""
        visible = [key for key, (_, _, since) in self.expected.items() if since <= self.now][:count]
        received = self.queue.receive(count, self.now, timeout)
        assert [message.id for message in received] == visible
        for message in received:
            self._hide(message, timeout)
        return (received[0].id, received[0].receipt) if received else None

    @rule(target=receipts, known=consumes(receipts), timeout=st.integers(0, 50), text=st.none() | st.text(max_size=5))
    def update(self, known: tuple[str, str] | None, timeout: int, text: str | None) -> tuple[str, str] | None:
        """A received message gets another text or time, and another receipt."""
        if known is None or not self._is_valid(*known):
            return None
        message = self.queue.update(*known, self.now, timeout=timeout, text=text)
        self._hide(message, timeout)
        return message.id, message.receipt

    @rule(known=consumes(receipts))
    def delete(self, known: tuple[str, str] | None) -> None:
        """A received message is gone."""
        if known is not None and self._is_valid(*known):
            self.queue.delete(*known, self.now)
            del self.expected[known[0]]

    @invariant()
    def nothing_is_lost(self) -> None:
        """The queue has exactly the expected messages, in their order."""
        existing = self.queue.existing(self.now)
        assert [(message.id, message.text) for message in existing] == [
            (key, text) for key, (text, _, _) in self.expected.items()
        ]
        assert all(message.dequeue_count >= (message.id in self.valid) for message in existing)

    def _hide(self, message: Message, timeout: int) -> None:
        _, expires, _ = self.expected[message.id]
        self.expected[message.id] = (message.text, expires, self.now + timeout)
        self.valid[message.id] = message.receipt

    def _is_valid(self, message_id: str, receipt: str) -> bool:
        """Whether a receipt is the last one of a message in the queue. If not, the queue refuses it."""
        if message_id in self.expected and self.valid[message_id] == receipt:
            return True
        refusal = WrongReceipt if message_id in self.expected else NoSuchMessage
        try:
            self.queue.delete(message_id, receipt, self.now)
        except refusal:
            return False
        raise AssertionError("the queue took an old receipt")


TestQueueOperations = QueueOperations.TestCase
TestQueueOperations.settings = settings(max_examples=25, stateful_step_count=30)
