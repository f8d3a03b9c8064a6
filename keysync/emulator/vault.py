"""A key vault: its secrets, their versions, and the deleted ones. Knows nothing of HTTP; the clock is an argument."""

from __future__ import annotations

import bisect
import copy
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from keysync.emulator.data import RESOURCE_GROUP, SUBSCRIPTION_ID, SecretData, VaultData
from keysync.emulator.throttle import Clock

KEEP_DELETED_DAYS = 90


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
    """A secret with its versions, oldest first."""

    name: str
    managed: bool
    versions: list[SecretVersion]

    @property
    def latest(self) -> SecretVersion:
        """The version that a call without a version returns."""
        return self.versions[-1]


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


class Vault:
    """A key vault. Methods raise KeyError for an unknown name. They do not check permissions or rules: the caller does.

    `policy` and `read_only` may be changed at any time.
    """

    def __init__(self, data: VaultData, tenant_id: str, clock: Clock) -> None:
        self.name = data.name
        self.subscription_id = data.subscription_id or SUBSCRIPTION_ID
        self.resource_group = data.resource_group or RESOURCE_GROUP
        self.location = data.location
        self.tenant_id = data.tenant_id or tenant_id
        self.denied = frozenset(data.denied)
        self.policy = data.policy
        self.read_only = data.read_only
        self.access_policies = data.access_policies
        self.api_versions = data.api_versions
        self.purge_protection = data.purge_protection
        self._recover_delay = data.recover_delay
        self._delete_delay = data.delete_delay
        self.clock_offset = data.clock_offset
        self._true_clock = clock
        self._stale: dict[str, tuple[Secret | None, int]] = {}
        self.table = SecretTable()
        self._deleted: dict[str, DeletedSecret] = {}
        now = int(self.now())
        for secret in data.secrets:
            self.table.put(_secret_of(secret, now))
        for secret in data.deleted:
            self._deleted[secret.name.lower()] = DeletedSecret(_secret_of(secret, now), now, now)

    @property
    def id(self) -> str:
        """ARM id of the vault."""
        group = f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
        return f"{group}/providers/Microsoft.KeyVault/vaults/{self.name}"

    def now(self) -> float:
        """The time of the vault's own clock, in seconds since 1970."""
        return self._true_clock() + self.clock_offset

    @property
    def secrets(self) -> Mapping[str, Sequence[SecretVersion]]:
        """The versions of every secret that is not deleted, by secret name."""
        self._finish_recoveries()
        return {secret.name: secret.versions for secret in self.table.all()}

    def versions(self, name: str) -> list[SecretVersion]:
        """The versions of one secret, oldest first; empty if there is no such secret."""
        secret = self.find(name)
        return [] if secret is None else list(secret.versions)

    def find(self, name: str) -> Secret | None:
        """The secret of this name, None if there is none or it is deleted."""
        self._finish_recoveries()
        return self.table.get(name)

    def copy_of(self, name: str) -> Secret | None:
        """A deep copy of the secret, None if there is none."""
        return copy.deepcopy(self.find(name))

    def replace(self, name: str, secret: Secret | None) -> None:
        """Replace the secret with `secret`, or remove it if that is None."""
        if self.find(name) is not None:
            self.table.pop(name)
        if secret is not None:
            self.table.put(secret)

    def serve_stale(self, name: str, secret: Secret | None, reads: int) -> None:
        """Return `secret` in the next `reads` calls of `read`."""
        self._stale[name.lower()] = secret, reads

    def serves_stale(self, name: str) -> bool:
        """Whether the next `read` returns a secret of `serve_stale`."""
        return name.lower() in self._stale

    def end_stale_reads(self) -> None:
        """Return the current secret in every `read` from now on."""
        self._stale.clear()

    def read(self, name: str) -> Secret | None:
        """The secret for a GET of the latest version: as `find`, unless `serve_stale` overrides it."""
        secret, left = self._stale.pop(name.lower(), (None, 0))
        if not left:
            return self.find(name)
        if left > 1:
            self._stale[name.lower()] = secret, left - 1
        return secret

    def page(self, after: str, size: int) -> tuple[list[Secret], str | None]:
        """Up to `size` secrets that sort after the name `after`, and the `after` of the next page, None for the last page."""
        self._finish_recoveries()
        return self.table.page(after, size)

    def find_deleted(self, name: str) -> DeletedSecret | None:
        """The deleted secret of this name, also while its deletion or recovery is in progress."""
        self._finish_recoveries()
        return self._deleted.get(name.lower())

    def deleted_secrets(self) -> list[DeletedSecret]:
        """Every deleted secret whose deletion is visible, sorted by name."""
        self._finish_recoveries()
        now = self.now()
        return [self._deleted[name] for name in sorted(self._deleted) if self._deleted[name].visible_at <= now]

    def add_version(
        self,
        name: str,
        value: str,
        *,
        content_type: str | None = None,
        tags: Mapping[str, str] | None = None,
        enabled: bool = True,
        not_before: int | None = None,
        expires: int | None = None,
    ) -> tuple[Secret, SecretVersion]:
        """Add a version, and the secret if it has none yet. The version inherits nothing from the previous one."""
        now = int(self.now())
        added = SecretVersion(
            version=uuid.uuid4().hex,
            value=value,
            content_type=content_type,
            tags=dict(tags or {}),
            enabled=enabled,
            not_before=not_before,
            expires=expires,
            created=now,
            updated=now,
        )
        secret = self.find(name)
        if secret is None:
            secret = Secret(name, managed=False, versions=[])
            self.table.put(secret)
        secret.versions.append(added)
        return secret, added

    def touch(self, version: SecretVersion) -> None:
        """Set the time of the last change of a version to now."""
        version.updated = int(self.now())

    def delete(self, name: str) -> DeletedSecret:
        """Soft-delete a secret."""
        now = self.now()
        deleted = DeletedSecret(self.table.pop(name), int(now), now + self._delete_delay)
        self._deleted[name.lower()] = deleted
        return deleted

    def recover(self, name: str) -> Secret:
        """Start the recovery of a deleted secret. It is visible once the delay is over."""
        deleted = self._deleted[name.lower()]
        if deleted.recovered_at is None:
            deleted.recovered_at = self.now() + self._recover_delay
        self._finish_recoveries()
        return deleted.secret

    def purge(self, name: str) -> None:
        """Remove a deleted secret permanently."""
        del self._deleted[name.lower()]

    def is_visible(self, deleted: DeletedSecret) -> bool:
        """Whether the deletion is visible."""
        return deleted.visible_at <= self.now()

    def _finish_recoveries(self) -> None:
        now = self.now()
        recovered = [
            name
            for name, deleted in self._deleted.items()
            if deleted.recovered_at is not None and deleted.recovered_at <= now
        ]
        for name in recovered:
            self.table.put(self._deleted.pop(name).secret)

    def export(self) -> tuple[list[Secret], list[DeletedSecret]]:
        """Every secret, and every deleted secret."""
        self._finish_recoveries()
        return self.table.all(), list(self._deleted.values())

    def restore(self, secrets: Iterable[Secret], deleted: Iterable[DeletedSecret]) -> None:
        """Replace the whole content with the result of `export`."""
        self.table = SecretTable()
        for secret in secrets:
            self.table.put(secret)
        self._deleted = {entry.secret.name.lower(): entry for entry in deleted}
        self._stale.clear()


def _secret_of(data: SecretData, now: int) -> Secret:
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
    return Secret(data.name, managed=data.managed, versions=[version])
