"""Requests to Resource Manager, and the interface of the providers that serve them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import ClassVar, Protocol

from keysync.emulator.faults import Operation
from keysync.emulator.wire import Call, Reply

_REGISTRATION_PARTS = 5
"""The segments of ``/subscriptions/ID/providers/NAMESPACE/register``."""


@dataclass(frozen=True)
class ArmRequest:
    """A request for ``SCOPE/providers/NAMESPACE/PATH``, or for ``SCOPE`` alone, which has no namespace.

    The description and the registration of a provider are operations of Resource Manager, not of the provider. A scope can
    itself contain ``providers``, as that of a role assignment for an account. The last one counts.
    """

    call: Call
    scope: tuple[str, ...]
    namespace: str
    path: tuple[str, ...]

    @classmethod
    def of(cls, call: Call) -> ArmRequest:
        """The request that a call makes."""
        parts = call.segments
        if [part.lower() for part in parts[-1:]] in (["register"], ["unregister"]) and len(
            parts
        ) == _REGISTRATION_PARTS:
            return cls(call, tuple(parts), "", ())
        last = max((index for index, part in enumerate(parts) if part.lower() == "providers"), default=None)
        if last is None or last + 2 >= len(parts):
            return cls(call, tuple(parts), "", ())
        return cls(call, tuple(parts[:last]), parts[last + 1], tuple(parts[last + 2 :]))

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The path in lower case."""
        return tuple(part.lower() for part in self.path)

    @cached_property
    def subscription(self) -> str:
        """The subscription in the path, as the client wrote it; empty if it has none."""
        return self._after("subscriptions", 0)

    @cached_property
    def group(self) -> str:
        """The resource group in the path, as the client wrote it; empty if it has none."""
        return self._after("resourcegroups", 2)

    def _after(self, word: str, position: int) -> str:
        following = self.scope[position : position + 2]
        return following[1] if len(following) > 1 and following[0].lower() == word else ""

    @property
    def scope_id(self) -> str:
        """ARM id of the scope."""
        return "".join(f"/{part}" for part in self.scope)

    @property
    def resource_id(self) -> str:
        """ARM id of the resource of the provider that the first two segments of the path name."""
        return f"{self.scope_id}/providers/{self.namespace}/{'/'.join(self.path[:2])}"

    @property
    def version(self) -> str:
        """The api-version; empty if it is missing."""
        return self.call.query.get("api-version", "")


@dataclass(frozen=True)
class ArmOperation:
    """An operation of a provider on `target`, the name for faults and for the request log.

    `action` is the action that a role must allow on `scope`, an ARM id. Both are empty if no role is needed. `run` carries it
    out, for a caller that may do so.
    """

    name: Operation
    target: str
    run: Callable[[], Reply]
    action: str = ""
    scope: str = ""


class Provider(Protocol):
    """A resource provider, such as Microsoft.Batch."""

    namespace: ClassVar[str]
    """The name, as in ids."""
    versions: ClassVar[Mapping[str, tuple[str, ...]]]
    """The supported api-versions by resource type."""

    def find(self, request: ArmRequest) -> ArmOperation | None:
        """The operation that a request is for, None if there is none."""
        ...


def arm_headers(call: Call, now: float) -> dict[str, str]:
    """The headers of every reply of Resource Manager. `now` is in seconds since 1970."""
    correlation = call.headers.get("x-ms-correlation-request-id") or str(uuid.uuid4())
    time = datetime.fromtimestamp(now, UTC)
    return {
        "Pragma": "no-cache",
        "Expires": "-1",
        "X-Content-Type-Options": "nosniff",
        "x-ms-correlation-request-id": correlation,
        "x-ms-routing-request-id": f"WESTEUROPE:{time:%Y%m%dT%H%M%SZ}:{correlation}",
    }
