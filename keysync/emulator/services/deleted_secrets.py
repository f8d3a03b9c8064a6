"""The deletion of secrets, and the operations on deleted ones: get, list, recover and purge."""

from __future__ import annotations

from keysync.emulator.services.secret_body import attributes, secret_body
from keysync.emulator.services.vault_checks import check_name, check_name_free, check_unmanaged, find_secret
from keysync.emulator.services.vault_paging import page_reply, requested_page
from keysync.emulator.vault import KEEP_DELETED_DAYS, DeletedSecret, Vault
from keysync.emulator.wire import Call, Json, Refused, Reply, error


class DeletedSecrets:
    """The operations that delete secrets of one vault, recover them and purge them."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def delete_secret(self, call: Call, name: str) -> Reply:
        """Delete a secret. The deletion is visible after the vault's delay."""
        check_name(name)
        if self._vault.find(name) is None:
            check_name_free(self._vault, name)
        check_unmanaged(find_secret(self._vault, name), "delete")
        return Reply(200, self._body(call, self._vault.delete(name)))

    def get_deleted(self, call: Call, name: str) -> Reply:
        """A deleted secret, without its value."""
        return Reply(200, self._body(call, self._deleted(name)))

    def list_deleted(self, call: Call) -> Reply:
        """A page of the deleted secrets."""
        after, size = requested_page(call)
        secrets = [deleted for deleted in self._vault.deleted_secrets() if deleted.secret.name.lower() > after]
        next_after = secrets[size - 1].secret.name.lower() if len(secrets) > size else None
        items = [self._body(call, deleted, versioned=False) for deleted in secrets[:size]]
        return page_reply(call, items, size, next_after)

    def recover_secret(self, call: Call, name: str) -> Reply:
        """Recover a deleted secret. It can be read after the vault's delay."""
        self._deleted(name)
        secret = self._vault.recover(name)
        return Reply(200, secret_body(call, secret, secret.latest))

    def purge_secret(self, name: str) -> Reply:
        """Remove a deleted secret for good."""
        if self._vault.purge_protection:
            return error(403, "Forbidden", 'Operation "purge" is not enabled for this vault.')
        if self._deleted(name).recovered_at is not None:
            check_name_free(self._vault, name)
        self._vault.purge(name)
        return Reply(204)

    def _deleted(self, name: str) -> DeletedSecret:
        check_name(name)
        deleted = self._vault.find_deleted(name)
        if deleted is None or not self._vault.is_visible(deleted):
            raise Refused(error(404, "SecretNotFound", f"Deleted Secret not found: {name}"))
        return deleted

    def _body(self, call: Call, deleted: DeletedSecret, *, versioned: bool = True) -> Json:
        level = "Recoverable" if self._vault.purge_protection else "Recoverable+Purgeable"
        return {
            **secret_body(call, deleted.secret, deleted.secret.latest, versioned=versioned),
            "attributes": {**attributes(deleted.secret.latest), "recoveryLevel": level},
            "recoveryId": f"{call.base}/deletedsecrets/{deleted.secret.name}",
            "deletedDate": deleted.deleted,
            "scheduledPurgeDate": deleted.deleted + KEEP_DELETED_DAYS * 86_400,
        }
