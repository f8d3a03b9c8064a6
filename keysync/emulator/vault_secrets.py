"""The secrets of a vault: their versions, the deleted ones, and the table that finds them by name."""

from __future__ import annotations

import bisect
import uuid
from dataclasses import dataclass, field

from keysync.emulator.data import SecretData


@dataclass
class SecretVersion:
    """One version of a secret; times are whole seconds since 1970."""

    version: str
    value: str = field(repr=False)
    content_type: str | None
    tags: dict[str, str]
    enabled: bool
    not_before: int | None
    expires: int | None
    created: int
    updated: int


@dataclass
class Secret:
    """A secret with its versions, oldest first.

    `managed`: a certificate owns it. `previous_version` is what Azure tells of the version before the first one.
    """

    name: str
    managed: bool
    versions: list[SecretVersion]
    previous_version: str | None = None

    @property
    def latest(self) -> SecretVersion:
        """The version that a call without a version returns."""
        return self.versions[-1]

    def previous_of(self, version: SecretVersion) -> str | None:
        """The version before this one, as Azure tells it of secrets that a certificate owns."""
        index = self.versions.index(version)
        if index == 0:
            return self.previous_version
        return self.versions[index - 1].version if self.managed else None


@dataclass
class DeletedSecret:
    """A soft-deleted secret. `recovered_at` is the end of a recovery in progress."""

    secret: Secret
    deleted: int
    visible_at: float
    recovered_at: float | None = None


class SecretTable:
    """Secrets by name, ignoring case. They are sorted by name, so that pages of a listing are stable."""

    def __init__(self) -> None:
        self._by_name: dict[str, Secret] = {}
        self._order: list[str] = []

    def get(self, name: str) -> Secret | None:
        """The secret of this name, if there is one."""
        return self._by_name.get(name.lower())

    def put(self, secret: Secret) -> None:
        """Add a secret, or replace the one of its name."""
        key = secret.name.lower()
        if key not in self._by_name:
            bisect.insort(self._order, key)
        self._by_name[key] = secret

    def pop(self, name: str) -> Secret:
        """Remove a secret and return it. Raises KeyError if there is none."""
        del self._order[bisect.bisect_left(self._order, name.lower())]
        return self._by_name.pop(name.lower())

    def page(self, after: str, size: int) -> tuple[list[Secret], str | None]:
        """Up to `size` secrets that sort after the name `after`, and the `after` of the next page, None for the last page."""
        start = bisect.bisect_right(self._order, after) if after else 0
        keys = self._order[start : start + size]
        more = start + size < len(self._order)
        return [self._by_name[key] for key in keys], keys[-1] if more and keys else None

    def all(self) -> list[Secret]:
        """Every secret, sorted by name."""
        return [self._by_name[key] for key in self._order]


def secret_of(data: SecretData, now: int) -> Secret:
    """The secret that a data file describes. `now` is the time of its creation by default, in seconds since 1970."""
    created = data.created if data.created is not None else now
    version = SecretVersion(
        version=uuid.uuid4().hex,
        value=data.value,
        content_type=data.content_type,
        tags=dict(data.tags),
        enabled=data.enabled,
        not_before=data.not_before,
        expires=data.expires,
        created=created,
        updated=data.updated if data.updated is not None else created,
    )
    return Secret(data.name, managed=data.managed, versions=[version], previous_version=data.previous_version)
