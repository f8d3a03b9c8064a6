"""The events that Event Grid sends to the queues: an action on a resource, as a subscription's system topic reports it.

https://learn.microsoft.com/azure/event-grid/event-schema-subscriptions has the schema, with listing keys as its example.
Delivery is at least once and unordered; the faults of a queue make that visible.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from keysync.emulator.queue_data import DeliveryFaults, QueueData
from keysync.emulator.queues import Queues
from keysync.emulator.resource_actions import Action
from keysync.emulator.roles import RoleAssignment, Roles
from keysync.emulator.wire import Json

_POISON = (
    "not base64: %%%",
    base64.b64encode(b"not JSON").decode("ascii"),
    base64.b64encode(b"[]").decode("ascii"),
    base64.b64encode(b'{"eventType": 7, "data": "none"}').decode("ascii"),
)
"""Messages that no consumer can read, each in turn."""


@dataclass
class Subscription:
    """An event subscription with a queue as its endpoint. `faults` are used up one event at a time."""

    data: QueueData
    faults: DeliveryFaults
    waiting: list[str]

    def wants(self, action: Action) -> bool:
        """Whether the filters of the subscription let an event pass."""
        patterns = [pattern.lower() for pattern in self.data.actions]
        in_scope = f"{action.resource_id}/".lower().startswith(f"{self.data.scope.rstrip('/')}/".lower())
        return in_scope and any(fnmatchcase(action.operation.lower(), pattern) for pattern in patterns)


class EventGrid:
    """Delivers events to the queues whose subscriptions ask for them."""

    def __init__(self, queues: Queues, data: list[QueueData], roles: Roles, clock: Callable[[], float]) -> None:
        self._queues = queues
        self._roles = roles
        self._clock = clock
        self._poisoned = 0
        self.subscriptions = {
            (each.account, each.name): Subscription(each, each.delivery.model_copy(), []) for each in data
        }

    def subscription(self, queue_name: str) -> Subscription:
        """The subscription of a queue in the data. Raises KeyError if it has none."""
        queue = self._queues.named(queue_name)
        return self.subscriptions[queue.account, queue.name]

    def publish(self, action: Action) -> None:
        """Send the event of an action to every queue that asks for it."""
        for subscription in self.subscriptions.values():
            if subscription.wants(action):
                event = action.event(self._clock(), _evidence(self._roles, action))
                self._send(subscription, _message(subscription.data, event))

    def _send(self, subscription: Subscription, message: str) -> None:
        faults = subscription.faults
        if faults.lose:
            faults.lose -= 1
            return
        if faults.poison:
            faults.poison -= 1
            message = _POISON[self._poisoned % len(_POISON)]
            self._poisoned += 1
        copies = [message]
        if faults.duplicate:
            faults.duplicate -= 1
            copies *= 2
        if faults.reorder:
            faults.reorder -= 1
            subscription.waiting[:0] = copies
            if faults.reorder:
                return
            copies, subscription.waiting = subscription.waiting, []
        self._put(subscription, copies)

    def _put(self, subscription: Subscription, messages: list[str]) -> None:
        queue = self._queues.find(subscription.data.account, subscription.data.name)
        if queue is None:  # deleted: there is no dead-letter destination
            return
        for message in messages:
            queue.put(message, self._clock(), delay=subscription.faults.delay)


def _evidence(roles: Roles, action: Action) -> Json:
    """The role that allowed an action. A caller who may do everything without a role counts as an owner."""
    subscription = "/".join(action.resource_id.split("/")[:3])
    principal = action.principal_id
    found = roles.allowing(principal, action.operation, action.resource_id)
    if found is None:
        owner = next(role for role in roles.definitions("/") if role.name == "Owner")
        assignment_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{subscription} {principal}"))
        found = RoleAssignment(assignment_id, subscription, owner.role_id, principal, "ServicePrincipal"), owner
    assignment, role = found
    return {
        "role": role.name,
        "roleAssignmentScope": assignment.scope,
        "roleAssignmentId": assignment.assignment_id.replace("-", ""),
        "roleDefinitionId": role.role_id.replace("-", ""),
        "principalId": principal.replace("-", ""),
        "principalType": assignment.principal_type,
    }


def _message(data: QueueData, event: Json) -> str:
    content = json.dumps(_cloud_event(event) if data.event_schema == "CloudEventSchemaV1_0" else event)
    return base64.b64encode(content.encode()).decode("ascii") if data.base64 else content


def _cloud_event(event: Json) -> Json:
    return {
        "id": event["id"],
        "source": event["topic"],
        "specversion": "1.0",
        "type": event["eventType"],
        "subject": event["subject"],
        "time": event["eventTime"],
        "data": event["data"],
    }
