"""The kinds of calls to Key Vault. Names are those of the REST reference (learn.microsoft.com/rest/api/keyvault/secrets)."""

from __future__ import annotations

from typing import Final

from keysync.calls import Operation

GET_SECRET: Final = Operation("key_vault", "getSecret")
SET_SECRET: Final = Operation("key_vault", "setSecret", repeatable=False, changes=True)
UPDATE_SECRET: Final = Operation("key_vault", "updateSecret", changes=True)
GET_DELETED_SECRET: Final = Operation("key_vault", "getDeletedSecret")
LIST_SECRETS: Final = Operation("key_vault", "listSecrets")
LIST_VERSIONS: Final = Operation("key_vault", "listVersions")
RECOVER_SECRET: Final = Operation("key_vault", "recoverSecret", repeatable=False, changes=True)
DELETE_SECRET: Final = Operation("key_vault", "deleteSecret", repeatable=False, changes=True)
