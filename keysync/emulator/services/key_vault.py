"""One key vault: which operation a call is, and whether it may be carried out."""

from __future__ import annotations

from collections.abc import Callable

from keysync.emulator.access import Access
from keysync.emulator.backup_cipher import BackupCipher
from keysync.emulator.faults import Operation
from keysync.emulator.services.deleted_secrets import DeletedSecrets
from keysync.emulator.services.entra import Entra
from keysync.emulator.services.secret_backup import SecretBackup
from keysync.emulator.services.secrets import Secrets
from keysync.emulator.services.vault_access import VaultAccess
from keysync.emulator.services.vault_authentication import VaultAuthentication
from keysync.emulator.services.vault_network import network_denial, network_headers
from keysync.emulator.services.vault_operations import CHANGES, THROTTLED
from keysync.emulator.throttle import VAULT_CREATES, VAULT_OTHERS, TokenBuckets
from keysync.emulator.vault import Vault
from keysync.emulator.vault_versions import VERSIONS
from keysync.emulator.wire import Call, Refused, Reply, Route, error

_Operation = tuple[Operation, Callable[[], Reply]]


class KeyVault:
    """The operations on one vault."""

    def __init__(
        self,
        vault: Vault,
        entra: Entra,
        access: Access,
        clock: Callable[[], float],
        *,
        authority: str,
        backups: BackupCipher,
        buckets: TokenBuckets | None,
    ) -> None:
        self._vault = vault
        self._access = VaultAccess(vault, access)
        self._authentication = VaultAuthentication(vault, entra, clock, authority)
        self._secrets = Secrets(vault)
        self._deleted = DeletedSecrets(vault)
        self._backup = SecretBackup(vault, backups)
        self._buckets = buckets

    def route(self, call: Call) -> Route:
        """How to serve a call."""
        parts = call.segments
        operation, run = self._operation(call, parts)
        name = parts[1] if len(parts) > 1 and operation != "restoreSecret" else ""
        return Route(
            operation,
            f"{self._vault.name}/{name}" if name else self._vault.name,
            run,
            authorize=lambda: self._authorize(call, operation, name),
            limit=lambda headers: self._limit(operation, headers),
            service="vault",
            now=self._vault.now,
            headers=network_headers(self._vault, call.client),
        )

    def _operation(self, call: Call, parts: list[str]) -> _Operation:
        collection, rest = (parts[0].lower(), parts[1:]) if parts else ("", [])
        found = None
        if collection == "secrets":
            found = self._of_secrets(call, rest) or self._of_backups(call, rest)
        elif collection == "deletedsecrets":
            found = self._of_deleted_secrets(call, rest)
        message = f"The emulator does not serve {call.method} {call.raw_path}."
        return found or ("unknown", lambda: error(404, "NotFound", message))

    def _of_secrets(self, call: Call, parts: list[str]) -> _Operation | None:
        secrets = self._secrets
        match (call.method, *parts):
            case ("GET",):
                return "listSecrets", lambda: secrets.list_secrets(call)
            case ("PUT", name):
                return "setSecret", lambda: secrets.set_secret(call, name)
            case ("DELETE", name):
                return "deleteSecret", lambda: self._deleted.delete_secret(call, name)
            case ("GET", name):
                return "getSecret", lambda: secrets.get_secret(call, name, None)
            case ("GET", name, versions) if versions.lower() == "versions":
                return "listVersions", lambda: secrets.list_versions(call, name)
            case ("GET", name, version):
                return "getSecret", lambda: secrets.get_secret(call, name, version)
            case ("PATCH", name, *version):
                return "updateSecret", lambda: secrets.update_secret(call, name, version[0] if version else None)
            case _:
                return None

    def _of_backups(self, call: Call, parts: list[str]) -> _Operation | None:
        match (call.method, *parts):
            case ("POST", restore) if restore.lower() == "restore":
                return "restoreSecret", lambda: self._backup.restore_secret(call)
            case ("POST", name, backup) if backup.lower() == "backup":
                return "backupSecret", lambda: self._backup.backup_secret(call, name)
            case _:
                return None

    def _of_deleted_secrets(self, call: Call, parts: list[str]) -> _Operation | None:
        deleted = self._deleted
        match (call.method, *parts):
            case ("GET",):
                return "listDeletedSecrets", lambda: deleted.list_deleted(call)
            case ("GET", name):
                return "getDeletedSecret", lambda: deleted.get_deleted(call, name)
            case ("DELETE", name):
                return "purgeSecret", lambda: deleted.purge_secret(name)
            case ("POST", name, "recover"):
                return "recoverSecret", lambda: deleted.recover_secret(call, name)
            case _:
                return None

    def _authorize(self, call: Call, operation: str, name: str) -> Reply | None:
        """The refusal of the caller, None if the operation may be carried out."""
        try:
            token = self._authentication.token(call)
        except Refused as refused:
            return refused.reply
        return (
            self._wrong_version(call.query.get("api-version", ""))
            or network_denial(self._vault, token, call.client)
            or self._access.denial(token, operation, name)
            or self._read_only(operation)
        )

    def _wrong_version(self, version: str) -> Reply | None:
        supported = self._vault.api_versions or VERSIONS
        if version in supported:
            return None
        if not version:
            return error(400, "BadParameter", "api-version must be specified")
        message = f"The specified version ({version}) is not recognized. Consider using the latest supported version ({supported[-1]})."
        return error(400, "BadParameter", message)

    def _read_only(self, operation: str) -> Reply | None:
        """The reply to a write after a failover, as in Azure/azure-cli#25693 and MSEndpointMgr/CloudLAPS#70."""
        if not self._vault.read_only or operation not in CHANGES:
            return None
        message = f'Operation "{CHANGES[operation]}" is unavailable: the service is currently in a read-only state.'
        return error(503, "ServiceUnavailable", message)

    def _limit(self, operation: str, headers: dict[str, str]) -> Reply | None:
        if self._buckets is None:
            return None
        kind, limit = ("creates", VAULT_CREATES) if operation == "setSecret" else ("others", VAULT_OTHERS)
        decision = self._buckets.take((kind, self._vault.name.lower()), limit)
        if decision.allowed:
            return None
        headers["Retry-After"] = str(decision.retry_after)
        return error(429, *THROTTLED, headers=headers)
