"""The target interface: what the flow needs of a store of secrets. It sees fingerprints and metadata, never a value."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, TypeAlias

from keysync.failures import CallFailed, StaleRead
from keysync.secret.fingerprint import Fingerprint
from keysync.secret.value import SecretValue

MAX_TAGS: Final = 15
"""The limit of Key Vault."""
LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands for an unknown time."""


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """The latest version of a secret. `managed` says that a certificate owns it. Times are UTC.

    `age` is the age of the version at the read, by the service's clock; None if unknown.
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
    """The latest version is disabled, so its value cannot be read. `tags` are None if this identity may not list."""

    version: str | None = None
    tags: Mapping[str, str] | None = None
    managed: bool = False


@dataclass(frozen=True, slots=True)
class SoftDeleted:
    """A soft-deleted secret with these tags blocks the name.

    If it is not `purgeable`, only Azure purges it, at `purged_on` (UTC; None if the vault does not say).
    """

    tags: Mapping[str, str] | None = None
    purgeable: bool = True
    purged_on: datetime | None = field(default=None, compare=False)


Observation: TypeAlias = StoredSecret | Absent | Disabled | SoftDeleted


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata of a secret. `expires` is UTC."""

    tags: Mapping[str, str]
    content_type: str | None
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class History:
    """The number of versions of a secret, and of those created in the last 24 hours by the service's clock."""

    versions: int
    today: int = 0


@dataclass(frozen=True, slots=True)
class SecretProperties:
    """One secret in a listing of the vault, or one version in a listing of its versions; neither has the value.

    `version` is empty in the former. Times are UTC, in whole seconds; `created` is `LONG_AGO` if unknown.
    """

    name: str
    tags: Mapping[str, str]
    enabled: bool = True
    managed: bool = False
    content_type: str | None = None
    expires: datetime | None = None
    updated: datetime | None = None
    created: datetime = LONG_AGO
    version: str = ""


class WriteUnknown(CallFailed):
    """A write may have taken effect, or may do so later, but reading back does not show it. `record` is the first failure."""


class WriteConflict(CallFailed):
    """Another writer wrote: the latest version is neither the old one nor the one that keysync wrote."""


class LaterVersionListed(StaleRead):
    """Nothing was sent: the vault lists a later version than the one that it returns."""


class NotKept(CallFailed):
    """The vault accepted a change of a version but did not keep it."""


class CacheValidation(Protocol):
    """Confirms cached secrets of one vault during one run, so that they need not be read."""

    async def confirmed(self, name: str) -> tuple[StoredSecret, float] | None:
        """The cached secret and the time of the listing (monotonic seconds) if the listing confirms it, else None."""
        ...

    async def close(self) -> None:
        """Cancels the listing."""


class SecretTarget(Protocol):
    """One vault."""

    def validate_by_listing(self, names: Collection[str], *, since: float | None = None) -> CacheValidation:
        """Starts a listing for a run over `names`. Omits names that a listing has confirmed since `since` (monotonic seconds)."""
        ...

    async def prime(self) -> None:
        """Makes one first call, so that concurrent calls find a cached token. Raises CallFailed."""

    async def probe_write(self) -> None:
        """Checks that this identity may write secrets, without writing one. Raises CallFailed if it may not."""

    async def read(self, name: str, *, deleted: bool = True) -> Observation:
        """The current state of `name`. Without `deleted`, a soft-deleted secret counts as absent. Raises CallFailed."""
        ...

    async def history(self, name: str, stored: StoredSecret, *, at_most: History) -> History:
        """The number of versions of `name`, whose latest version is `stored`. Raises CallFailed.

        The tags of `stored` may answer without a request, as long as they count no more than `at_most`.
        """
        ...

    async def listing(self) -> tuple[SecretProperties, ...]:
        """All secrets of the vault. Raises CallFailed if any page fails."""
        ...

    async def write(self, name: str, value: SecretValue, metadata: Metadata, *, before: str | None) -> str:
        """Creates one version and returns its id. `before` is the observed version; None for no secret.

        After an ambiguous failure it reads back, and never sends the value again. Raises CallFailed; StaleRead if nothing was
        written and the secret must be read again; WriteUnknown if this or an earlier write may still take effect;
        WriteConflict if another writer wrote meanwhile.
        """
        ...

    async def patch(self, name: str, version: str, metadata: Metadata) -> None:
        """Sets tags, content type and expiry of `version` without creating a version.

        Raises CallFailed, or NotKept if the vault accepted the change but did not keep it.
        """

    async def enable(self, name: str, version: str, *, enabled: bool) -> None:
        """Enables or disables `version` without creating a version. Raises like `patch`."""

    async def recover(self, name: str) -> None:
        """Recovers a soft-deleted secret, and returns when it can be read. Raises CallFailed."""

    async def delete(self, name: str) -> None:
        """Deletes `name` recoverably, and never purges it. Raises CallFailed."""
