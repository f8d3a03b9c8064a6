"""Subscriptions, resource groups and their locks."""

from __future__ import annotations

from dataclasses import dataclass, field

from keysync.emulator.roles import is_within


@dataclass
class Subscription:
    """A subscription. `unregistered` has the namespaces of providers that are not registered, in lower case.

    With `providers_blocked` its offer does not permit operations of any provider.
    """

    id: str
    name: str
    state: str = "Enabled"
    unregistered: set[str] = field(default_factory=set[str])
    providers_blocked: bool = False

    @property
    def is_read_only(self) -> bool:
        """Whether every write is refused."""
        return self.state in {"Disabled", "Warned"}


@dataclass
class ResourceGroup:
    """A resource group."""

    subscription_id: str
    name: str
    location: str
    tags: dict[str, str]

    @property
    def id(self) -> str:
        """ARM id of the group."""
        return f"/subscriptions/{self.subscription_id}/resourceGroups/{self.name}"


@dataclass(frozen=True)
class Lock:
    """A lock of `level` ReadOnly or CanNotDelete on an ARM id."""

    scope: str
    level: str

    def refuses(self, scope: str, *, deletes: bool) -> bool:
        """Whether a write, or with `deletes` a deletion, on `scope` is refused."""
        return (deletes or self.level == "ReadOnly") and is_within(scope, self.scope)
