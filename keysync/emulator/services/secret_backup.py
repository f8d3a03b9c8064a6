"""Backup and restore of a secret with all its versions."""

from __future__ import annotations

from typing import Final

from keysync.emulator.backup_cipher import BackupCipher, CorruptBackup, ForeignBackup
from keysync.emulator.services.secret_body import bad_parameter, secret_bundle
from keysync.emulator.services.vault_checks import find_secret
from keysync.emulator.vault import Vault
from keysync.emulator.vault_secrets import Secret
from keysync.emulator.wire import Call, Refused, Reply, error, json_body

MAX_BACKUP_VERSIONS: Final = 500
"""Source: https://learn.microsoft.com/azure/key-vault/general/backup"""

_TOO_MANY_VERSIONS: Final = (
    "The secret has more than 500 versions and cannot be backed up. The emulator invented this code and this text: Azure "
    "documents only that such a backup may fail."
)
_CONFLICT: Final = (
    "There was a conflict restoring the secret '{}'. This can happen if either: a second secret with the same name was "
    "created after the first secret was deleted; thus trying to restore a secret whose name is already in use. To fix "
    "this, rename the second secret to something else so that the restore works. The second probable cause of this "
    "exception is when multiple operations are performed in parallel against the secret. To avoid this error, perform "
    "operations against a secret in a sequential manner."
)
"""As in the recorded traffic of Azure/azure-sdk-for-js. It is filled with the identifier of the version."""


class SecretBackup:
    """Backup and restore in one vault."""

    def __init__(self, vault: Vault, cipher: BackupCipher) -> None:
        self._vault = vault
        self._cipher = cipher

    def backup_secret(self, call: Call, name: str) -> Reply:
        """The encrypted blob of a secret."""
        secret = find_secret(self._vault, call, name)
        if len(secret.versions) > MAX_BACKUP_VERSIONS:
            return bad_parameter(_TOO_MANY_VERSIONS)
        return Reply(200, {"value": self._cipher.encrypt(secret, self._vault.subscription_id)})

    def restore_secret(self, call: Call) -> Reply:
        """Restore the secret of a blob under its old name, with its versions."""
        blob = json_body(call).get("value")
        if not isinstance(blob, str):
            return bad_parameter("Property value is required and has to be a string.")
        secret = self._decrypt(blob)
        if self._vault.find(secret.name) or self._vault.find_deleted(secret.name):
            identifier = f"{call.base}/secrets/{secret.name}/{secret.latest.version}"
            return error(409, "Conflict", _CONFLICT.format(identifier))
        self._vault.add_secret(secret)
        return Reply(200, secret_bundle(call, self._vault, secret, secret.latest))

    def _decrypt(self, blob: str) -> Secret:
        try:
            return self._cipher.decrypt(blob, self._vault.subscription_id)
        except CorruptBackup:  # the wording is that of the tests of Azure/azure-sdk-for-js
            raise Refused(bad_parameter("Backup blob contains invalid or corrupt version.")) from None
        except ForeignBackup:  # the wording is that of Azure/azure-cli#8767
            raise Refused(bad_parameter("Cannot decrypt backup blob.")) from None
