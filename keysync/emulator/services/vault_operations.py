"""The operations of Key Vault: the action that a role allows, the permission of an access policy, and the names of changes."""

from __future__ import annotations

from typing import Final

ACTIONS: Final = {
    "getSecret": "getSecret/action",
    "setSecret": "setSecret/action",
    "updateSecret": "update/action",
    "listSecrets": "readMetadata/action",
    "listVersions": "readMetadata/action",
    "listDeletedSecrets": "readMetadata/action",
    "getDeletedSecret": "readMetadata/action",
    "deleteSecret": "delete",
    "recoverSecret": "recover/action",
    "purgeSecret": "purge/action",
    "backupSecret": "backup/action",
    "restoreSecret": "restore/action",
}
"""The data action of a role for each operation, below `Microsoft.KeyVault/vaults/secrets/`."""

PERMISSIONS: Final = {
    "getSecret": "get",
    "setSecret": "set",
    "updateSecret": "set",
    "listSecrets": "list",
    "listVersions": "list",
    "listDeletedSecrets": "list",
    "getDeletedSecret": "get",
    "deleteSecret": "delete",
    "recoverSecret": "recover",
    "purgeSecret": "purge",
    "backupSecret": "backup",
    "restoreSecret": "restore",
}
"""The permission in an access policy for each operation."""

CHANGES: Final = {
    "setSecret": "SecretSet",
    "updateSecret": "SecretUpdate",
    "deleteSecret": "SecretDelete",
    "recoverSecret": "SecretRecover",
    "purgeSecret": "SecretPurge",
    "restoreSecret": "SecretRestore",
}
"""The operations that change a vault, with the names that the service uses in messages and logs."""

THROTTLED: Final = (
    "Throttled",
    "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached",
)
"""The code and the message of the reply to a caller that is throttled."""

ERRORS: Final = {429: THROTTLED, 500: ("InternalServerError", "An unexpected error occurred.")}
"""The code and the message of errors by status, where public replies show them."""
