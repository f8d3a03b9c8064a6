"""One key vault: which operation a call is, and whether it may be carried out."""

from __future__ import annotations

from collections.abc import Callable

from keysync.emulator.faults import Operation
from keysync.emulator.services.deleted_secrets import DeletedSecrets
from keysync.emulator.services.entra import Entra
from keysync.emulator.services.secrets import Secrets
from keysync.emulator.services.vault_access import denial
from keysync.emulator.services.vault_authentication import VaultAuthentication
from keysync.emulator.services.vault_operations import CHANGES
from keysync.emulator.throttle import VAULT_CREATES, VAULT_OTHERS, TokenBuckets
from keysync.emulator.vault import Vault
from keysync.emulator.vault_versions import VERSIONS
from keysync.emulator.wire import Call, Refused, Reply, Route, error


class KeyVault:
    """The operations on one vault."""

    def __init__(
        self, vault: Vault, entra: Entra, clock: Callable[[], float], *, authority: str, buckets: TokenBuckets | None
    ) -> None:
        self._vault = vault
        self._authentication = VaultAuthentication(vault, entra, clock, authority)
        self._secrets = Secrets(vault)
        self._deleted = DeletedSecrets(vault)
        self._buckets = buckets

    def route(self, call: Call) -> Route:
        """How to serve a call."""
        parts = call.segments
        operation, run = self._operation(call, parts)
        name = parts[1] if len(parts) > 1 else ""
        return Route(
            operation,
            f"{self._vault.name}/{name}" if name else self._vault.name,
            run,
            authorize=lambda: self._authorize(call, operation, name),
            limit=lambda headers: self._limit(operation, headers),
            service="vault",
            now=self._vault.now,
        )

    def _operation(self, call: Call, parts: list[str]) -> tuple[Operation, Callable[[], Reply]]:  # noqa: C901  # one case for each path
        secrets, deleted = self._secrets, self._deleted
        match (call.method, parts[0].lower() if parts else "", *parts[1:]):
            case ("GET", "secrets"):
                return "listSecrets", lambda: secrets.list_secrets(call)
            case ("PUT", "secrets", name):
                return "setSecret", lambda: secrets.set_secret(call, name)
            case ("DELETE", "secrets", name):
                return "deleteSecret", lambda: deleted.delete_secret(call, name)
            case ("GET", "secrets", name):
                return "getSecret", lambda: secrets.get_secret(call, name, None)
            case ("GET", "secrets", name, versions) if versions.lower() == "versions":
                return "listVersions", lambda: secrets.list_versions(call, name)
            case ("GET", "secrets", name, version):
                return "getSecret", lambda: secrets.get_secret(call, name, version)
            case ("PATCH", "secrets", name, *version):
                return "updateSecret", lambda: secrets.update_secret(call, name, version[0] if version else None)
            case ("GET", "deletedsecrets"):
                return "listDeletedSecrets", lambda: deleted.list_deleted(call)
            case ("GET", "deletedsecrets", name):
                return "getDeletedSecret", lambda: deleted.get_deleted(call, name)
            case ("DELETE", "deletedsecrets", name):
                return "purgeSecret", lambda: deleted.purge_secret(name)
            case ("POST", "deletedsecrets", name, "recover"):
                return "recoverSecret", lambda: deleted.recover_secret(call, name)
            case _:
                message = f"The emulator does not serve {call.method} {call.raw_path}."
                return "unknown", lambda: error(404, "NotFound", message)

    def _authorize(self, call: Call, operation: str, name: str) -> Reply | None:
        """The refusal of the caller, None if the operation may be carried out."""
        try:
            token = self._authentication.token(call)
        except Refused as refused:
            return refused.reply
        resource = f"{call.base}/secrets/{name}" if name else call.base
        return (
            self._wrong_version(call.query.get("api-version", ""))
            or denial(self._vault, token, self._authentication.issuer(token), operation, resource)
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
        message = (
            "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached"
        )
        headers["Retry-After"] = str(decision.retry_after)
        return error(429, "Throttled", message, headers=headers)
