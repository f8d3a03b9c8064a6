"""What the sync asks of a store of secrets, and what it may see of one: fingerprints and metadata, never a value."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol, TypeAlias

from keysync.secret.fingerprint import Fingerprint
from keysync.secret.value import SecretValue


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """The latest version of a stored secret; `managed` says that a certificate owns it; times are UTC.

    `age` is how old the version was when it was read, by the service's clock alone; None where that is unknown.
    """

    version: str
    fingerprint: Fingerprint
    tags: Mapping[str, str]
    content_type: str | None = None
    managed: bool = False
    expires: datetime | None = None
    created: datetime | None = field(default=None, compare=False)
    age: timedelta | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Absent:
    """No secret of this name."""


@dataclass(frozen=True, slots=True)
class Disabled:
    """The latest version is disabled: its value cannot be read. `tags` are None where this identity may not list."""

    version: str | None = None
    tags: Mapping[str, str] | None = None
    managed: bool = False


@dataclass(frozen=True, slots=True)
class SoftDeleted:
    """A deleted secret still holds the name, and carried these tags.

    Where it is not `purgeable`, Azure alone purges it, on `purged_on` (UTC; None where the vault does not say).
    """

    tags: Mapping[str, str] | None = None
    purgeable: bool = True
    purged_on: datetime | None = field(default=None, compare=False)


Observation: TypeAlias = StoredSecret | Absent | Disabled | SoftDeleted


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a secret carries beside its value; `expires` is UTC."""

    tags: Mapping[str, str]
    content_type: str | None
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class History:
    """How many versions a secret has, and how many of them were made in the last 24 hours, by the service's clock."""

    versions: int
    today: int = 0


@dataclass(frozen=True, slots=True)
class SecretProperties:
    """One secret as a listing of the vault shows it; no version, no value. Times are UTC, in whole seconds."""

    name: str
    tags: Mapping[str, str]
    enabled: bool = True
    managed: bool = False
    content_type: str | None = None
    expires: datetime | None = None
    updated: datetime | None = None


class ListValidation(Protocol):
    """One run's look at a vault as a whole, which may spare it reads."""

    async def recall(self, name: str) -> tuple[StoredSecret, float] | None:
        """What stands under `name` and the monotonic time of the look, where that is certain without reading it."""
        ...

    async def close(self) -> None:
        """Ends the look."""
        ...


class NoListValidation:
    """Spares nothing."""

    async def recall(self, name: str) -> tuple[StoredSecret, float] | None:  # noqa: ARG002  # the protocol's signature
        """Nothing is certain."""
        return None

    async def close(self) -> None:
        """There is nothing to end."""


class SecretTarget(Protocol):
    """One vault."""

    def survey(self, names: Collection[str]) -> ListValidation:
        """Begins a look at the vault for a run over `names`."""
        ...

    async def prime(self) -> None:
        """Makes the first call that a vault has to have before many. Raises CallFailed."""
        ...

    async def read(self, name: str, *, deleted: bool = True) -> Observation:
        """What stands under `name` now; without `deleted` a soft-deleted secret is not told from none. Raises CallFailed."""
        ...

    async def history(self, name: str, latest: str) -> History:
        """The versions of `name`, of which `latest` was seen to be the latest. Raises CallFailed."""
        ...

    async def listing(self) -> tuple[SecretProperties, ...]:
        """Every secret of the vault, whole or not at all. Raises CallFailed."""
        ...

    async def write(self, name: str, value: SecretValue, metadata: Metadata, *, before: str | None) -> str:
        """Makes one version and returns its id; `before` is the version that was observed, None for none.

        After an ambiguous failure it reads back and never sends the value again. Raises CallFailed, Outdated where nothing
        was written and another look is due, WriteUnknown where the value may have been written or an earlier write may still
        take effect, or WriteConflict where another writer wrote meanwhile.
        """
        ...

    async def patch(self, name: str, version: str, metadata: Metadata) -> None:
        """Sets tags, content type and expiry of `version` without making another.

        Raises CallFailed, or NotKept where the vault accepted the change and did not keep it.
        """
        ...

    async def enable(self, name: str, version: str, *, enabled: bool) -> None:
        """Enables or disables `version` without making another. Raises as `patch` does."""
        ...

    async def recover(self, name: str) -> None:
        """Brings a soft-deleted secret back and returns once it can be read. Raises CallFailed."""
        ...

    async def delete(self, name: str) -> None:
        """Deletes `name` so that it can be recovered; never purges. Raises CallFailed."""
        ...
