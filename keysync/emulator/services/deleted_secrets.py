"""The deletion of secrets, and the operations on deleted ones: get, list, recover and purge."""

from __future__ import annotations

from keysync.emulator.services.secret_body import secret_bundle, secret_item
from keysync.emulator.services.vault_checks import check_name, check_name_free, check_unmanaged, find_secret
from keysync.emulator.services.vault_paging import paged
from keysync.emulator.vault import Vault
from keysync.emulator.vault_secrets import DeletedSecret
from keysync.emulator.wire import Call, Json, Refused, Reply, error

_DAY = 86_400
_PURGE_PROTECTED = (
    'Operation "purge" is not allowed because purge protection is enabled for this vault. Key Vault service will '
    "automatically purge it after the retention period has passed.\r\nVault: {};location={}"
)
"""As quoted in public issues. It is filled with the vault's name and its location."""


class DeletedSecrets:
    """The operations that delete secrets of one vault, recover them and purge them."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def delete_secret(self, call: Call, name: str) -> Reply:
        """Delete a secret. The deletion is visible after the vault's delay."""
        check_unmanaged(find_secret(self._vault, call, name), "delete")
        return Reply(200, self._bundle(call, self._vault.delete(name)))

    def get_deleted(self, call: Call, name: str) -> Reply:
        """A deleted secret, without its value."""
        self._check_soft_delete("getdeleted")
        return Reply(200, self._bundle(call, self._deleted(name)))

    def list_deleted(self, call: Call) -> Reply:
        """A page of the deleted secrets."""
        self._check_soft_delete("listdeleted")

        def fetch(after: str, size: int) -> tuple[list[Json], str | None]:
            secrets = [deleted for deleted in self._vault.deleted_secrets() if deleted.secret.name.lower() > after]
            next_after = secrets[size - 1].secret.name.lower() if len(secrets) > size else None
            return [self._item(call, deleted) for deleted in secrets[:size]], next_after

        return paged(call, self._vault, fetch)

    def recover_secret(self, call: Call, name: str) -> Reply:
        """Recover a deleted secret. It can be read after the vault's delay."""
        self._check_soft_delete("recover")
        self._deleted(name)
        secret = self._vault.recover(name)
        return Reply(200, secret_bundle(call, self._vault, secret, secret.latest))

    def purge_secret(self, name: str) -> Reply:
        """Remove a deleted secret for good."""
        check_name(name)
        self._check_soft_delete("purge")
        if self._vault.purge_protection or self._vault.protected_subscription:
            return error(403, "Forbidden", _PURGE_PROTECTED.format(self._vault.name, self._vault.location))
        deleted = self._vault.find_deleted(name)
        if deleted is not None and (deleted.recovered_at is not None or not self._vault.is_visible(deleted)):
            check_name_free(self._vault, name)
        self._deleted(name)
        self._vault.purge(name)
        return Reply(204)

    def _check_soft_delete(self, operation: str) -> None:
        """Refuses an operation on deleted secrets in a vault that keeps none, as in Azure/terraform-provider-azapi#879."""
        if not self._vault.soft_delete:
            raise Refused(error(400, "NotSupported", f'Operation "{operation}" is not enabled for this vault.'))

    def _deleted(self, name: str) -> DeletedSecret:
        check_name(name)
        deleted = self._vault.find_deleted(name)
        if deleted is None or not self._vault.is_visible(deleted):
            raise Refused(error(404, "SecretNotFound", f"Deleted Secret not found: {name}"))
        return deleted

    def _bundle(self, call: Call, deleted: DeletedSecret) -> Json:
        secret = deleted.secret
        return {**secret_bundle(call, self._vault, secret, secret.latest), **self._deletion(call, deleted)}

    def _item(self, call: Call, deleted: DeletedSecret) -> Json:
        return {**secret_item(call, self._vault, deleted.secret), **self._deletion(call, deleted)}

    def _deletion(self, call: Call, deleted: DeletedSecret) -> Json:
        """What a reply says of the deletion: nothing if it is final."""
        if not self._vault.soft_delete:
            return {}
        return {
            "recoveryId": f"{call.base}/deletedsecrets/{deleted.secret.name}",
            "deletedDate": deleted.deleted,
            "scheduledPurgeDate": deleted.deleted + self._vault.retention_days * _DAY,
        }
