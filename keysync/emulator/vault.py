"""A key vault: its secrets, their versions, and the deleted ones. Knows nothing of HTTP; the clock is an argument."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from keysync.emulator.data import RESOURCE_GROUP, SUBSCRIPTION_ID, Network, VaultData, VaultSettings
from keysync.emulator.stale_reads import StaleReads
from keysync.emulator.throttle import Clock
from keysync.emulator.vault_secrets import DeletedSecret, Secret, SecretTable, SecretVersion, secret_of

_LONGEST_RETENTION: Final = 90
"""Days. Key Vault has its own names for the recovery levels of vaults that keep deleted secrets for fewer days."""

_DAY: Final = 86_400


class Vault:
    """A key vault. Methods raise KeyError for an unknown name. They do not check permissions or rules: the caller does.

    The attributes that `VaultSettings` describes may be changed at any time. `clock_offset` changes the times that the
    vault shows; delays follow the true clock. `url` is its address, once it is served. `token_epoch` counts the calls of `refuse_known_tokens`.
    """

    def __init__(self, data: VaultData, tenant_id: str, clock: Clock) -> None:
        self.name = data.name
        self.url = f"https://{data.name}.vault.azure.net"
        self.subscription_id = data.subscription_id or SUBSCRIPTION_ID
        self.resource_group = data.resource_group or RESOURCE_GROUP
        self.location = data.location
        self.tags = dict(data.tags)
        self.tenant_id = data.tenant_id or tenant_id
        self.denied = frozenset(data.denied)
        self.policy = data.policy
        self.read_only = data.read_only
        self.access_policies = data.access_policies
        self.api_versions = data.api_versions
        self.challenge = data.challenge
        self.network: Network = data.network
        self.token_epoch = 0
        self.soft_delete = data.soft_delete
        self.retention_days = data.retention_days
        self.purge_protection = data.purge_protection
        self.protected_subscription = data.protected_subscription
        self.recover_delay = data.recover_delay
        self.delete_delay = data.delete_delay
        self.stale_reads = data.stale_reads
        self.stale_seconds = data.stale_seconds
        self.empty_page = data.empty_page
        self.clock_offset = data.clock_offset
        self._true_clock = clock
        self._stale = StaleReads(clock)
        self.table = SecretTable()
        self._deleted: dict[str, DeletedSecret] = {}
        now = int(self.now())
        for secret in data.secrets:
            self.table.put(secret_of(secret, now))
        for secret in data.deleted:
            self._deleted[secret.name.lower()] = DeletedSecret(secret_of(secret, now), now, clock())

    @property
    def id(self) -> str:
        """ARM id of the vault."""
        group = f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
        return f"{group}/providers/Microsoft.KeyVault/vaults/{self.name}"

    def change(self, settings: VaultSettings) -> None:
        """Change the settings that were given explicitly."""
        for name in settings.model_fields_set:
            setattr(self, name, getattr(settings, name))

    def refuse_known_tokens(self) -> None:
        """Refuse every token that was used here, with a claims challenge, as continuous access evaluation does."""
        self.token_epoch += 1

    def now(self) -> float:
        """The time of the vault's own clock, in seconds since 1970."""
        return self._true_clock() + self.clock_offset

    @property
    def recovery_level(self) -> str:
        """How a deletion can be undone, as Key Vault's attribute `recoveryLevel` names it."""
        if not self.soft_delete:
            return "Purgeable"
        level = "Recoverable" if self.retention_days == _LONGEST_RETENTION else "CustomizedRecoverable"
        if self.protected_subscription:
            return f"{level}+ProtectedSubscription"
        return level if self.purge_protection else f"{level}+Purgeable"

    @property
    def secrets(self) -> Mapping[str, Sequence[SecretVersion]]:
        """The versions of every secret that is not deleted, by secret name."""
        self._finish()
        return {secret.name: secret.versions for secret in self.table.all()}

    def versions(self, name: str) -> list[SecretVersion]:
        """The versions of one secret, oldest first; empty if there is no such secret."""
        secret = self.find(name)
        return [] if secret is None else list(secret.versions)

    def find(self, name: str) -> Secret | None:
        """The secret of this name, None if there is none or it is deleted."""
        self._finish()
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
        self._stale.forget(name)
        self._stale.keep(name, secret, reads=reads)

    def serves_stale(self, name: str) -> bool:
        """Whether the next `read` returns a past state of the secret."""
        return self._stale.pending(name)

    def end_stale_reads(self) -> None:
        """Return the current secret in every `read` from now on."""
        self._stale.clear()

    def read(self, name: str) -> Secret | None:
        """The secret for a GET of the latest version: as `find`, unless the read is stale."""
        past = self._stale.take(name)
        return self.find(name) if past is None else past.secret

    def page(self, after: str, size: int) -> tuple[list[Secret], str | None]:
        """Up to `size` secrets that sort after the name `after`, and the `after` of the next page, None for the last page."""
        self._finish()
        return self.table.page(after, size)

    def find_deleted(self, name: str) -> DeletedSecret | None:
        """The deleted secret of this name, also while its deletion or recovery is in progress."""
        self._finish()
        return self._deleted.get(name.lower())

    def deleted_secrets(self) -> list[DeletedSecret]:
        """Every deleted secret whose deletion is visible, sorted by name."""
        self._finish()
        return [self._deleted[name] for name in sorted(self._deleted) if self.is_visible(self._deleted[name])]

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
        self._before_write(name)
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

    def add_secret(self, secret: Secret) -> None:
        """Add a secret with its versions. Its name has to be free."""
        self._before_write(secret.name)
        self.table.put(secret)

    def update(self, name: str, version: SecretVersion, properties: Mapping[str, object]) -> None:
        """Set these fields of a version of the secret `name`."""
        self._before_write(name)
        for field, value in properties.items():
            setattr(version, field, value)
        version.updated = int(self.now())

    def delete(self, name: str) -> DeletedSecret:
        """Delete a secret: for good if the vault has no soft-delete."""
        self._before_write(name)
        deleted = DeletedSecret(self.table.pop(name), int(self.now()), self._true_clock() + self.delete_delay)
        if self.soft_delete:
            self._deleted[name.lower()] = deleted
        return deleted

    def recover(self, name: str) -> Secret:
        """Start the recovery of a deleted secret. It is visible once the delay is over."""
        deleted = self._deleted[name.lower()]
        if deleted.recovered_at is None:
            deleted.recovered_at = self._true_clock() + self.recover_delay
        self._finish()
        return deleted.secret

    def purge(self, name: str) -> None:
        """Remove a deleted secret permanently."""
        del self._deleted[name.lower()]

    def is_visible(self, deleted: DeletedSecret) -> bool:
        """Whether the deletion is visible."""
        return deleted.visible_at <= self._true_clock()

    def _before_write(self, name: str) -> None:
        """Keeps the present state of a secret for the reads after this write, if they are to be stale."""
        if self.stale_reads:
            self._stale.keep(name, self.copy_of(name), reads=self.stale_reads)
        elif self.stale_seconds:
            self._stale.keep(name, self.copy_of(name), seconds=self.stale_seconds)

    def _finish(self) -> None:
        """Ends the recoveries that are due, and purges what was deleted too long ago."""
        now, purged_before = self._true_clock(), self.now() - self.retention_days * _DAY
        for name, deleted in list(self._deleted.items()):
            if deleted.recovered_at is not None and deleted.recovered_at <= now:
                self.table.put(self._deleted.pop(name).secret)
            elif deleted.deleted <= purged_before:
                del self._deleted[name]

    def export(self) -> tuple[list[Secret], list[DeletedSecret]]:
        """Every secret, and every deleted secret."""
        self._finish()
        return self.table.all(), list(self._deleted.values())

    def restore(self, secrets: Iterable[Secret], deleted: Iterable[DeletedSecret]) -> None:
        """Replace the whole content with the result of `export`."""
        self.table = SecretTable()
        for secret in secrets:
            self.table.put(secret)
        self._deleted = {entry.secret.name.lower(): entry for entry in deleted}
        self._stale.clear()
