"""The storage queues of the data file, and what Event Grid sends to them."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from keysync.emulator.faults import QueueOperation, unknown_operation
from keysync.emulator.identity_data import GUID


class DeliveryFaults(BaseModel):
    """What goes wrong on the way to a queue: with the next `lose`, `poison` and `duplicate` events, each counted down.

    A poisoned event arrives as a text that no consumer can read. The next `reorder` events arrive together, the last one
    first. Every event becomes visible `delay` seconds after it was sent.
    """

    model_config = ConfigDict(extra="forbid")

    lose: int = Field(default=0, ge=0)
    poison: int = Field(default=0, ge=0)
    duplicate: int = Field(default=0, ge=0)
    reorder: int = Field(default=0, ge=0)
    delay: float = Field(default=0.0, ge=0)


class QueueData(BaseModel):
    """One queue of the storage account `account`, with an event subscription whose endpoint it is. Names are unique.

    The subscription gets the events of `actions`, patterns of operation names that ignore case, on resources in `scope`, an
    ARM id. By default these are all, as from a system topic of all subscriptions: listing keys is an action too. `base64` is
    what Event Grid does. `messages` are in the queue at the start. `denied` names operations that no role allows. The
    subscription and the resource group of the storage account are those of the first Batch account by default.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=3, max_length=63, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    account: str = Field(default="keysyncevents", pattern=r"^[a-z0-9]{3,24}$")
    subscription_id: str | None = Field(default=None, pattern=GUID)
    resource_group: str | None = Field(default=None, min_length=1, max_length=90)
    location: str = "westeurope"
    metadata: dict[str, str] = {}
    messages: list[str] = []
    denied: list[str] = []
    actions: list[str] = ["*"]
    scope: str = ""
    event_schema: Literal["EventGridSchema", "CloudEventSchemaV1_0"] = "EventGridSchema"
    base64: bool = True
    delivery: DeliveryFaults = DeliveryFaults()

    @field_validator("denied")
    @classmethod
    def _are_operations(cls, denied: list[str]) -> list[str]:
        known = get_args(QueueOperation)
        for name in denied:
            if name not in known:
                raise unknown_operation(name, known)
        return denied

    @property
    def id(self) -> str:
        """The ARM id of the queue."""
        group = f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
        account = f"{group}/providers/Microsoft.Storage/storageAccounts/{self.account}"
        return f"{account}/queueServices/default/queues/{self.name}"
