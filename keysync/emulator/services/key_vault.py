"""The secrets of a key vault, with the limits and errors of the real service."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict

from keysync.emulator.faults import Operation
from keysync.emulator.services.azure_policy import denial
from keysync.emulator.services.entra import BadToken, Entra, Token
from keysync.emulator.services.paging import decode_token, encode_token
from keysync.emulator.services.secret_body import attributes, bad_parameter, parse_properties, secret_body
from keysync.emulator.throttle import VAULT_CREATES, VAULT_OTHERS, TokenBuckets
from keysync.emulator.vault import KEEP_DELETED_DAYS, DeletedSecret, Secret, SecretVersion, Vault
from keysync.emulator.wire import Call, Json, Refused, Reply, Route, error, json_body

VERSIONS = ("7.4", "7.5", "7.6", "2025-07-01", "2026-04-01")
"""The supported api-versions of secrets."""

MAX_PAGE = 25
MAX_VALUE = 25 * 1024

_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")
_PUBLIC_AUDIENCE = "https://vault.azure.net"
_ACTIONS = {
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
}
_PERMISSIONS = {
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
}
"""The permission in an access policy for each operation."""
CHANGES = {
    "setSecret": "SecretSet",
    "updateSecret": "SecretUpdate",
    "deleteSecret": "SecretDelete",
    "recoverSecret": "SecretRecover",
    "purgeSecret": "SecretPurge",
}
"""The operations that change a vault, with the names that the service uses in messages and logs."""


class KeyVault:
    """The operations on one vault."""

    def __init__(
        self, vault: Vault, entra: Entra, clock: Callable[[], float], *, authority: str, buckets: TokenBuckets | None
    ) -> None:
        self._vault = vault
        self._entra = entra
        self._clock = clock
        self._authority = authority
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
        match (call.method, parts[0].lower() if parts else "", *parts[1:]):
            case ("GET", "secrets"):
                return "listSecrets", lambda: self._list(call)
            case ("PUT", "secrets", name):
                return "setSecret", lambda: self._set(call, name)
            case ("DELETE", "secrets", name):
                return "deleteSecret", lambda: self._delete(call, name)
            case ("GET", "secrets", name):
                return "getSecret", lambda: self._get(call, name, None)
            case ("GET", "secrets", name, versions) if versions.lower() == "versions":
                return "listVersions", lambda: self._list_versions(call, name)
            case ("GET", "secrets", name, version):
                return "getSecret", lambda: self._get(call, name, version)
            case ("PATCH", "secrets", name, *version):
                return "updateSecret", lambda: self._update(call, name, version[0] if version else None)
            case ("GET", "deletedsecrets"):
                return "listDeletedSecrets", lambda: self._list_deleted(call)
            case ("GET", "deletedsecrets", name):
                return "getDeletedSecret", lambda: self._get_deleted(call, name)
            case ("DELETE", "deletedsecrets", name):
                return "purgeSecret", lambda: self._purge(name)
            case ("POST", "deletedsecrets", name, "recover"):
                return "recoverSecret", lambda: self._recover(call, name)
            case _:
                message = f"The emulator does not serve {call.method} {call.raw_path}."
                return "unknown", lambda: error(404, "NotFound", message)

    # Authorization and throttling

    def _authorize(self, call: Call, operation: str, name: str) -> Reply | None:
        if call.bearer is None:
            return self._challenge(call, "AKV10000: Request is missing a Bearer or PoP token.")
        try:
            token = self._entra.read(call.bearer)
        except BadToken:
            return self._challenge(call, "AKV10001: The token is malformed or its signature is not valid.")
        if token.tenant_id.lower() != self._vault.tenant_id.lower():
            return self._challenge(call, f"AKV10032: Invalid issuer: the vault belongs to {self._vault.tenant_id}.")
        if token.audience.rstrip("/") not in {call.base, _resource(call), _PUBLIC_AUDIENCE}:
            return self._challenge(
                call, f"AKV10022: Invalid audience: expected {_resource(call)}, found {token.audience}."
            )
        if token.expires <= self._clock():
            return self._challenge(call, "AKV10001: The token has expired.")
        version = call.query.get("api-version", "")
        if not version:
            return error(400, "BadParameter", "api-version must be specified")
        supported = self._vault.api_versions or VERSIONS
        if version not in supported:
            message = f"The specified version ({version}) is not recognized. Consider using the latest supported version ({supported[-1]})."
            return error(400, "BadParameter", message)
        if operation in self._vault.denied:
            deny = self._no_permission if self._vault.access_policies else self._no_role
            return deny(call, token, operation, name)
        if self._vault.read_only and operation in CHANGES:
            return _read_only(operation)
        return None

    def _challenge(self, call: Call, message: str) -> Reply:
        challenge = f'Bearer authorization="{self._authority}/{self._vault.tenant_id}", resource="{_resource(call)}"'
        return error(401, "Unauthorized", message, headers={"WWW-Authenticate": challenge})

    def _no_role(self, call: Call, token: Token, operation: str, name: str) -> Reply:
        secret = f"/secrets/{name}" if name else ""
        message = (
            "Caller is not authorized to perform action on resource.\r\n"
            "If role assignments, deny assignments or role definitions were changed recently, please observe "
            "propagation time.\r\n"
            f"Caller: appid={token.client_id};oid={token.object_id};iss={self._authority}/{token.tenant_id}/\r\n"
            f"Action: 'Microsoft.KeyVault/vaults/secrets/{_ACTIONS[operation]}'\r\n"
            f"Resource: '{call.base}{secret}'\r\n"
            f"Assignment: (not found)\r\nDenyAssignmentId: null\r\nDecisionReason: null \r\nVault: {self._vault.name}\r\n"
        )
        return error(403, "Forbidden", message, inner="ForbiddenByRbac")

    def _no_permission(self, _call: Call, token: Token, operation: str, _name: str) -> Reply:
        """The denial of a vault with access policies, as quoted in public issues."""
        message = (
            f"The user, group or application 'appid={token.client_id};oid={token.object_id};iss={self._authority}/{token.tenant_id}/' "
            f"does not have secrets {_PERMISSIONS[operation]} permission on key vault '{self._vault.name};location=westeurope'."
        )
        return error(403, "Forbidden", message, inner="ForbiddenByPolicy")

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

    # Reading

    def _secret(self, name: str, find: Callable[[str], Secret | None] | None = None) -> Secret:
        _check_name(name)
        secret = (find or self._vault.find)(name)
        if secret is None:
            raise Refused(_not_found(name))
        return secret

    def _get(self, call: Call, name: str, version: str | None) -> Reply:
        secret = self._secret(name, self._vault.read if version is None else None)
        selected = _version(secret, version)
        if not selected.enabled:
            message = "Operation get is not allowed on a disabled secret."
            return error(403, "Forbidden", message, inner="SecretDisabled")
        return Reply(200, {"value": selected.value, **secret_body(call, secret, selected)})

    def _list(self, call: Call) -> Reply:
        after, size = _page(call)
        page, next_after = self._vault.page(after, size)
        items = [secret_body(call, secret, secret.latest, versioned=False) for secret in page]
        return _page_reply(call, items, size, next_after)

    def _list_versions(self, call: Call, name: str) -> Reply:
        after, size = _page(call)
        secret = self._secret(name)
        # Sorted by identifier: the order of versions has no meaning in Azure either.
        versions = sorted(
            (entry for entry in secret.versions if entry.version > after), key=lambda entry: entry.version
        )
        next_after = versions[size - 1].version if len(versions) > size else None
        items = [secret_body(call, secret, version) for version in versions[:size]]
        return _page_reply(call, items, size, next_after)

    # Writing

    def _set(self, call: Call, name: str) -> Reply:
        _check_name(name)
        body = json_body(call)
        value = body.get("value")
        if not isinstance(value, str):
            raise Refused(bad_parameter("Property value is required and has to be a string."))
        if len(value.encode("utf-8", "surrogatepass")) > MAX_VALUE:
            raise Refused(bad_parameter(f"The secret's value is longer than {MAX_VALUE} bytes."))
        properties = parse_properties(body)
        self._check_name_free(name)
        existing = self._vault.find(name)
        if existing is not None and existing.managed:
            message = "Operation set is not allowed on this secret, since it is associated with a certificate."
            return error(403, "Forbidden", message)
        self._check_policy({**properties, "created": int(self._vault.now())})
        secret, version = self._vault.add_version(name, value)
        _apply(version, properties)
        return Reply(200, {"value": value, **secret_body(call, secret, version)})

    def _check_name_free(self, name: str) -> None:
        deleted = self._vault.find_deleted(name)
        if deleted is None:
            return
        if deleted.recovered_at is not None:
            message, inner = f"Secret {name} is currently being recovered, retry later.", "ObjectIsBeingRecovered"
        elif not self._vault.is_visible(deleted):
            message, inner = f"Secret {name} is currently being deleted.", "ObjectIsBeingDeleted"
        else:
            message = (
                f"Secret {name} is currently in a deleted but recoverable state, and its name cannot be reused; in "
                "this state, the secret can only be recovered or purged."
            )
            inner = "ObjectIsDeletedButRecoverable"
        raise Refused(error(409, "Conflict", message, inner=inner))

    def _check_policy(self, version: Mapping[str, object]) -> None:
        message = denial(self._vault.policy, version) if self._vault.policy is not None else None
        if message is not None:
            raise Refused(error(403, "Forbidden", message, inner="ForbiddenByPolicy"))

    def _update(self, call: Call, name: str, version: str | None) -> Reply:
        secret = self._secret(name)
        updated = _version(secret, version)
        properties = parse_properties(json_body(call))
        if secret.managed:
            message = "Operation update is not allowed on this secret, since it is associated with a certificate."
            return error(403, "Forbidden", message)
        self._check_policy({**asdict(updated), **properties})
        _apply(updated, properties)
        self._vault.touch(updated)
        return Reply(200, secret_body(call, secret, updated))

    # Deleting and recovering

    def _delete(self, call: Call, name: str) -> Reply:
        _check_name(name)
        if self._vault.find(name) is None:
            self._check_name_free(name)
        if self._secret(name).managed:
            message = "Operation delete is not allowed on this secret, since it is associated with a certificate."
            return error(403, "Forbidden", message)
        return Reply(200, self._deleted_body(call, self._vault.delete(name)))

    def _deleted_secret(self, name: str) -> DeletedSecret:
        _check_name(name)
        deleted = self._vault.find_deleted(name)
        if deleted is None or not self._vault.is_visible(deleted):
            raise Refused(error(404, "SecretNotFound", f"Deleted Secret not found: {name}"))
        return deleted

    def _get_deleted(self, call: Call, name: str) -> Reply:
        return Reply(200, self._deleted_body(call, self._deleted_secret(name)))

    def _list_deleted(self, call: Call) -> Reply:
        after, size = _page(call)
        secrets = [deleted for deleted in self._vault.deleted_secrets() if deleted.secret.name.lower() > after]
        next_after = secrets[size - 1].secret.name.lower() if len(secrets) > size else None
        items = [self._deleted_body(call, deleted, versioned=False) for deleted in secrets[:size]]
        return _page_reply(call, items, size, next_after)

    def _recover(self, call: Call, name: str) -> Reply:
        self._deleted_secret(name)
        secret = self._vault.recover(name)
        return Reply(200, secret_body(call, secret, secret.latest))

    def _purge(self, name: str) -> Reply:
        if self._vault.purge_protection:
            return error(403, "Forbidden", 'Operation "purge" is not enabled for this vault.')
        if self._deleted_secret(name).recovered_at is not None:
            self._check_name_free(name)
        self._vault.purge(name)
        return Reply(204)

    def _deleted_body(self, call: Call, deleted: DeletedSecret, *, versioned: bool = True) -> Json:
        level = "Recoverable" if self._vault.purge_protection else "Recoverable+Purgeable"
        return {
            **secret_body(call, deleted.secret, deleted.secret.latest, versioned=versioned),
            "attributes": {**attributes(deleted.secret.latest), "recoveryLevel": level},
            "recoveryId": f"{call.base}/deletedsecrets/{deleted.secret.name}",
            "deletedDate": deleted.deleted,
            "scheduledPurgeDate": deleted.deleted + KEEP_DELETED_DAYS * 86_400,
        }


def _resource(call: Call) -> str:
    """The resource of the challenge: the parent domain of the vault's host.

    Azure's is https://vault.azure.net. The SDKs refuse a challenge whose resource is no parent domain of the called host.
    The same rule gives 127.0.0.1 a resource that this check accepts. `localhost` has no parent domain, so a client that
    calls it must turn the check off (`verify_challenge_resource`).
    """
    scheme, _, host = call.base.partition("://")
    return f"{scheme}://{host.partition('.')[2] or host}"


def _read_only(operation: str) -> Reply:
    """The reply to a write after a failover, as in Azure/azure-cli#25693 and MSEndpointMgr/CloudLAPS#70."""
    message = f'Operation "{CHANGES[operation]}" is unavailable: the service is currently in a read-only state.'
    return error(503, "ServiceUnavailable", message)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise Refused(bad_parameter(f"The request URI contains an invalid name: {name}"))


def _not_found(name: str) -> Reply:
    message = (
        f"A secret with (name/id) {name} was not found in this key vault. If you recently deleted this secret you may "
        "be able to recover it using the correct recovery command."
    )
    return error(404, "SecretNotFound", message)


def _version(secret: Secret, version: str | None) -> SecretVersion:
    if version is None:
        return secret.latest
    for candidate in secret.versions:
        if candidate.version == version.lower():
            return candidate
    raise Refused(_not_found(f"{secret.name}/{version}"))


def _apply(version: SecretVersion, properties: Mapping[str, object]) -> None:
    for name, value in properties.items():
        setattr(version, name, value)


def _page(call: Call) -> tuple[str, int]:
    """The name or version after which the requested page starts, and its size."""
    size = call.query.get("maxresults", str(MAX_PAGE))
    if not size.isdigit() or not 1 <= int(size) <= MAX_PAGE:
        raise Refused(bad_parameter(f"maxresults is between 1 and {MAX_PAGE}."))
    return decode_token(call.query.get("$skiptoken", "")), int(size)


def _page_reply(call: Call, items: list[Json], size: int, next_after: str | None) -> Reply:
    link = None
    if next_after is not None:
        query = f"api-version={call.query['api-version']}&$skiptoken={encode_token(next_after)}&maxresults={size}"
        link = f"{call.base}{call.raw_path}?{query}"
    return Reply(200, {"value": items, "nextLink": link})
